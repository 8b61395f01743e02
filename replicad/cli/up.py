"""``replicad up``: a whole cluster on this machine, in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import click

from replicad.cli.local_cluster import LocalCluster, LocalNode, node_environment, plan, reserved
from replicad.cli.output import EXIT_USAGE, Failure, examples
from replicad.cli.supervisor import Supervisor

PORT = click.IntRange(1, 65_535)


@click.command(
    epilog=examples(
        "replicad up",
        "replicad up --nodes 5 --data /tmp/five --http-port 8101 --peer-port 9101",
        "replicad up --nodes 1 --data /tmp/one",
        "replicad up --data /tmp/active --protocol active",
    )
)
@click.option("--nodes", type=click.IntRange(1, 9), help="How many nodes a new cluster gets.  [default: 3]")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Directory of everything: cluster.toml, and n1/, n2/, … of the nodes.",
)
@click.option("--http-port", type=PORT, help="HTTP port of n1; n2 has the next one.  [default: 8001]")
@click.option("--peer-port", type=PORT, help="Peer port of n1; n2 has the next one.  [default: 9001]")
@click.option(
    "--protocol",
    type=click.Choice(["remote-write", "active"]),
    help="Protocol of the group `default` of a new cluster.  [default: remote-write]",
)
@click.option("--restart", is_flag=True, help="Start a node that died again, each time a little later.")
def up(
    nodes: int | None, data: Path, http_port: int | None, peer_port: int | None, protocol: str | None, *, restart: bool
) -> None:
    """Run a cluster on this machine: one process for each node, until Ctrl-C.

    A later start goes on with the data, and with the settings in DIR/cluster.toml. A node that dies is reported, and
    can be started again by hand with "replicad serve"; this command then leaves it alone.

    Exit codes: 0 all nodes stopped as asked, 1 one had to be killed or none was left, 2 it cannot start (a port is
    taken, a directory is in use or cannot be written, other settings than the data has).
    """
    cluster = plan(data, nodes, http_port, peer_port, protocol)
    environ, dropped = node_environment(dict(os.environ))
    with reserved(cluster):
        try:
            cluster.write()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Failure(f"{cluster.file} cannot be written: {reason}", EXIT_USAGE) from error
    for name in dropped:
        click.echo(f"{name} is ignored: {cluster.file} says it for each node", err=True)
    count = len(cluster.nodes)
    say(f"starting {count} node{'s' if count > 1 else ''} with {cluster.file}; Ctrl-C stops all of it")
    sys.exit(asyncio.run(_run(cluster, environ, restart=restart)))


async def _run(cluster: LocalCluster, environ: dict[str, str], *, restart: bool) -> int:
    supervisor = Supervisor(cluster, say, environ, restart=restart)

    def stop() -> None:
        say("killing" if supervisor.stopping.is_set() else "stopping")
        supervisor.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return await supervisor.run(greet)


def greet(nodes: list[LocalNode]) -> None:
    """Print three lines to try, each at another node if there are three."""
    first, second, third = (str(nodes[at % len(nodes)].http) for at in range(3))
    say("")
    say("Try it:")
    say(f"  curl -X PUT -d hello http://{first}/v1/kv/greeting")
    say(f"  curl 'http://{second}/v1/kv/greeting?raw'")
    say(f"  curl http://{third}/v1/replicad/status")
    say("")


def say(line: str) -> None:
    """Print a line at once; a terminal that is gone is no reason to fail."""
    with suppress(OSError):
        click.echo(line)
