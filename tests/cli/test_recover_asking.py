"""Whom ``replicad recover`` asks, and what it makes of the answers."""

import threading

from replicad.cli import recover as recovering
from replicad.cli.nodes import Address, UnreachedError
from replicad.node.identity import Identity
from tests.cli.served import served
from tests.cli.test_recover import Running, group

SURVIVOR = Identity("c", "n3", "3" * 16)
SILENT = Address("127.0.0.1", 1)


def test_a_node_is_asked_at_every_address():
    """The catalog and the settings may name different ones; alive at the second is alive, silent at both is told."""
    with served(Running("n2", "2" * 16, default=group())) as (_, address):
        host, _, port = address.partition(":")
        (found,) = recovering._ask_everywhere({"n2": [SILENT, Address(host, int(port))]}, SURVIVOR)
    assert found.disk == "2" * 16
    (lost,) = recovering._ask_everywhere({"n2": [SILENT, SILENT]}, SURVIVOR)
    assert (lost.disk, lost.where) == ("", "127.0.0.1:1")
    assert lost.silence


def test_all_addresses_are_asked_at_once(monkeypatch):
    """No answer comes before the last question was asked: one after another, nobody would ever get one."""
    nodes = {name: [Address(name, port) for port in (1, 2, 3)] for name in ("n1", "n2", "n4")}
    everybody = threading.Barrier(9, timeout=30)

    def ask(address, *_, **__):
        everybody.wait()
        raise UnreachedError(address, "no answer", sent=False)

    monkeypatch.setattr(recovering, "ask", ask)
    heard = recovering._ask_everywhere(nodes, SURVIVOR)
    assert [witness.node for witness in heard] == ["n1", "n2", "n4"]
    assert heard[0].where == "n1:1, n1:2, n1:3"
