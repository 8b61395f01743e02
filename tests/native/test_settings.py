import resource
import socket
from types import SimpleNamespace

import pytest

from replicad.cli.local_cluster import plan, reserved
from replicad.cli.output import Failure
from replicad.cli.serve import DESCRIPTORS_RESERVED, connections_max
from replicad.node.settings import SettingsError, load
from tests.cli.ports import free_ports

FILE = """
[cluster]
name = "c"
[nodes.n1]
http_listen = "127.0.0.1:8001"
peer_listen = "127.0.0.1:9001"
{first}
[nodes.n2]
http_listen = "127.0.0.1:8002"
peer_listen = "127.0.0.1:9002"
{second}
"""


def settings_of(tmp_path, first="", second=""):
    (tmp_path / "c.toml").write_text(FILE.format(first=first, second=second), encoding="utf-8")
    return load(tmp_path / "c.toml", "n1", {})


def test_a_file_without_a_native_port_opens_none(tmp_path):
    """Files of earlier releases mean what they meant."""
    settings = settings_of(tmp_path)
    assert settings.own.native_listen == ""
    assert settings.own.native_address() is None


def test_where_native_clients_find_a_node(tmp_path):
    """What is advertised, or else what is listened on."""
    both = 'native_listen = "0.0.0.0:7001"\nnative_advertise = "[::1]:7009"'
    settings = settings_of(tmp_path, both, 'native_listen = "127.0.0.1:7002"')
    assert {name: str(node.native_address()) for name, node in settings.nodes.items()} == {
        "n1": "[::1]:7009",
        "n2": "127.0.0.1:7002",
    }


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ('native_listen = "7001"', "", r"nodes\.n1\.native_listen .*must be \"host:port\""),
        ('native_listen = "0.0.0.0:7001"', "", "native_listen is 0.0.0.0:7001, so native_advertise must say where"),
        ('native_advertise = "n1:7001"', "", "native_advertise says where a port is found that native_listen does not"),
        (
            'native_listen = "127.0.0.1:8002"',
            "",
            r"nodes\.n1\.native_listen and nodes\.n2\.http_listen are both 127\.0\.0\.1:8002; each needs its own",
        ),
        (
            'native_listen = "127.0.0.1:7001"',
            'native_listen = "127.0.0.1:7001"',
            r"nodes\.n1\.native_listen and nodes\.n2\.native_listen are both",
        ),
    ],
)
def test_what_cannot_be(tmp_path, first, second, sentence):
    with pytest.raises(SettingsError, match=sentence):
        settings_of(tmp_path, first, second)


@pytest.mark.parametrize(
    ("http", "peer", "native"),
    [(8001, 9001, 7001), (8001, 7002, 9001), (9001, 8001, 10001), (2000, 5000, 3000), (80, 5000, 1080)],
)
def test_the_native_ports_of_replicad_up(tmp_path, http, peer, native):
    """1,000 below the HTTP ports, or wherever the next thousand is free of other ports; the file says which."""
    cluster = plan(tmp_path, 3, http, peer)
    assert [node.native_listen.port for node in cluster.nodes] == [native, native + 1, native + 2]
    assert f'native_listen = "127.0.0.1:{native + 2}"' in cluster.text


def test_a_taken_native_port_of_replicad_up(tmp_path):
    """It is named before anything is started, with what would help; a file without native ports has none to check."""
    ports = free_ports(8)
    cluster = plan(tmp_path / "d", 3, ports, ports + 4)
    native = cluster.nodes[1].native_listen.port
    with socket.create_server(("127.0.0.1", native)):
        with pytest.raises(Failure, match=f"port {native} of 127.0.0.1, the native port of n2, is taken .*--http-port"):
            reserved(cluster).__enter__()
        cluster.file.parent.mkdir()
        cluster.write()
        lines = cluster.file.read_text().splitlines()
        text = "\n".join(line for line in lines if not line.startswith("native_listen"))
        cluster.file.write_text(text)
        older = plan(tmp_path / "d", None, None, None)
        assert [node.native_listen for node in older.nodes] == [None] * 3
        with reserved(older):
            pass


@pytest.mark.parametrize(
    ("descriptors", "native_listen", "expected"),
    [
        (1 << 20, "127.0.0.1:7001", (4096, 1024)),
        (1 << 20, "", (4096, 0)),
        (1024, "127.0.0.1:7001", (448, 448)),
        (1024, "", (896, 0)),
        (64, "127.0.0.1:7001", (1, 1)),
        (-1, "127.0.0.1:7001", (4096, 1024)),
    ],
)
def test_connections_leave_descriptors_for_files(monkeypatch, descriptors, native_listen, expected):
    """HTTP and native connections together are fewer than there are file descriptors."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    process = SimpleNamespace(http_connections_max=4096, native_connections_max=1024)
    found = connections_max(SimpleNamespace(process=process, own=SimpleNamespace(native_listen=native_listen)))
    assert found == expected
    assert descriptors < DESCRIPTORS_RESERVED or sum(found) + DESCRIPTORS_RESERVED <= descriptors
