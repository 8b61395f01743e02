"""A cluster of real processes whose nodes serve native clients, too."""

from contextlib import asynccontextmanager

from tests.node.cluster import Cluster, free_ports


class NativeCluster(Cluster):
    """``native``: name of a node -> ``host:port`` of its native port."""

    def __init__(self, directory, count=3, settings=None):
        super().__init__(directory, count, settings)
        file = directory / "cluster.toml"
        text = file.read_text(encoding="utf-8")
        taken = {port for node in self.nodes.values() for port in (node.http, node.peer)}
        ports = [port for port in free_ports(3 * count) if port not in taken]
        self.native = {name: f"127.0.0.1:{port}" for name, port in zip(self.nodes, ports, strict=False)}
        for name, address in self.native.items():
            text = text.replace(f"[nodes.{name}]\n", f'[nodes.{name}]\nnative_listen = "{address}"\n')
        file.write_text(text, encoding="utf-8")


@asynccontextmanager
async def running(directory, count=3, settings=None):
    """Run a cluster that is ready, and end it; a failure shows what the nodes printed last."""
    cluster = NativeCluster(directory, count, settings)
    try:
        cluster.start()
        await cluster.ready()
        yield cluster
    except BaseException:
        for node in cluster.nodes.values():
            if node.output.exists():
                print(f"--- {node.name} printed last:", *node.printed().splitlines()[-30:], sep="\n")
        raise
    finally:
        cluster.close()
