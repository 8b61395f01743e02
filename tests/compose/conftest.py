import fcntl
import hashlib
import tempfile
from pathlib import Path

import pytest

from tests.compose.base_image import base_image
from tests.compose.cluster import ROOT, Cluster, docker


@pytest.fixture(scope="session")
def cluster():
    """The cluster of docker-compose.yml, up and ready; afterwards nothing of it is left."""
    yield from alone("", more=False)


@pytest.fixture(scope="module")
def growing_cluster():
    """Another one, which docker-compose.more.yml can add nodes to."""
    yield from alone("-more", more=True)


def alone(suffix, *, more):
    """Yield a cluster that is up, in the only run of this checkout's container tests."""
    # One name per checkout: what an interrupted run left behind is found, another checkout's cluster is not touched.
    project = f"replicad-test-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}{suffix}"
    with (Path(tempfile.gettempdir()) / f"{project}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail("another run of this checkout's container tests is under way")
        yield from up_and_down(Cluster(project, base_image(), more=more))


def up_and_down(cluster):
    """Yield the cluster while it is up."""
    cluster.down()
    # Images are kept, so that the next run need not build; the ones they replaced are not.
    docker("image", "prune", "--force", "--filter", "label=replicad.stage", "--filter", "until=24h")
    try:
        try:
            cluster.up()
        except AssertionError:
            print(cluster.state_of_affairs())
            raise
        yield cluster
    finally:
        cluster.down()
        assert cluster.leftovers() == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the cluster's state with a failed test, before it is torn down."""
    report = yield
    for cluster in getattr(item, "funcargs", {}).values():
        if report.when == "call" and report.failed and isinstance(cluster, Cluster):
            report.sections.append(("the cluster", cluster.state_of_affairs()))
    return report
