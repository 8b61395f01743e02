"""The tests of a cluster's behaviour run once with each protocol: what they ask for does not depend on it."""

import pytest

from replicad.core.model.configuration import PROTOCOLS
from tests.node.cluster import Cluster


@pytest.fixture
def protocol(request, monkeypatch):
    """How the group `default` of every cluster of this test is fed."""
    monkeypatch.setattr(Cluster, "protocol", request.param)
    return request.param


def pytest_generate_tests(metafunc):
    """Run every test of the files `test_cluster_*` with both protocols."""
    if metafunc.module.__name__.rpartition(".")[2].startswith("test_cluster_"):
        metafunc.fixturenames.append("protocol")
        metafunc.parametrize("protocol", PROTOCOLS, indirect=True)
