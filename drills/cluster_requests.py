"""What the drills of many groups and changing members ask of a cluster: its pages, and the command itself."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from drills.harness import expect
from tests.node.cluster import Cluster, Node, until

CHANGE_SECONDS = 120.0


async def replicad(cluster: Cluster, *arguments: str, quiet: bool = True) -> tuple[int, str]:
    """Run a ``replicad`` command against the nodes that run; returns its exit code and what it printed."""
    addresses = ",".join(f"127.0.0.1:{node.http}" for node in cluster.nodes.values() if node.running)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REPLICAD_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "replicad.cli.main",
        *arguments,
        env=environment | {"REPLICAD_ADDR": addresses},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if quiet else None,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def create_group(node: Node, name: str, **wish: object) -> None:
    """Create a group through HTTP."""
    body = json.dumps(wish).encode()
    answer = await node.client.request("PUT", f"/v1/replicad/groups/{name}", body, seconds=CHANGE_SECONDS)
    expect(answer.status == 200, f"group {name} was not created: {answer.status} {answer.text}")


async def describe(node: Node, group: str) -> dict[str, Any]:
    """Return what a node says of a group."""
    answer = await node.client.get(f"/v1/replicad/groups/{group}")
    expect(answer.status == 200, f"{node.name} does not describe group {group}: {answer.status} {answer.text}")
    found: dict[str, Any] = answer.json()
    return found


async def coordinated_by(node: Node, group: str, wanted: str) -> None:
    """Wait until a node says that ``wanted`` coordinates a group."""

    async def there() -> bool:
        return bool((await describe(node, group))["coordinator"] == wanted)

    await until(f"{wanted} coordinates {group}", there)


async def counters(node: Node, *names: str) -> dict[str, float]:
    """Return metrics of a node, each summed over its labels."""
    text = (await node.client.get("/metrics")).text
    found = dict.fromkeys(names, 0.0)
    for line in text.splitlines():
        name = line.partition(" ")[0].partition("{")[0]
        if name in found:
            found[name] += float(line.rpartition(" ")[2])
    return found
