"""Drill: a cluster of one node becomes three, five and three again, under load, with kills in between."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from pathlib import Path

from drills.cluster_requests import describe, replicad
from drills.harness import Report, cluster_for, expect, note, parser, run, table
from drills.histories import Histories
from tests.node.cluster import Cluster, Node, until

PLAN = (("add", "n2"), ("add", "n3"), ("add", "n4"), ("add", "n5"), ("remove", ""), ("remove", ""))
"""``remove ""``: a member that chance picks, the coordinator among them."""
ATTEMPTS = 20
FIRST = "n1"
"""The settings of the others name it: it is where a new node asks first."""


def newcomer(cluster: Cluster, directory: Path, name: str) -> Node:
    """Start a node whose settings name itself and n1."""
    other = Cluster(directory / name, 1)["n1"]
    other.name, other.data, other.output = name, directory / name / "data", directory / f"{name}.output"
    text = '[cluster]\nname = "trial"\nmeta = ["n1"]\n[groups.default]\nmembers = ["n1"]\n'
    for node in (cluster[FIRST], other):
        listen = f'http_listen = "127.0.0.1:{node.http}"\npeer_listen = "127.0.0.1:{node.peer}"'
        text += f'[nodes.{node.name}]\n{listen}\ndata = "{"data" if node is other else node.name}"\n'
    other.config.write_text(text, encoding="utf-8")
    cluster.nodes[name] = other
    other.start()
    return other


class Growing:
    """The cluster on its way: who are members, what was done, and how long it took."""

    def __init__(self, cluster: Cluster, load: Histories, seed: int) -> None:
        self.cluster = cluster
        self.load = load
        self.chance = random.Random(seed)
        self.members = [FIRST]
        self.rows: list[tuple[str, str, str, int, int]] = []
        self.kills = 0

    async def change(self, action: str, name: str) -> None:
        """Change one member with the command, in half of the cases with a kill meanwhile."""
        before, begin = self.load.acknowledged, time.monotonic()
        arguments = ["member", action, name]
        if action == "add":
            node = newcomer(self.cluster, self.cluster.directory, name)
            arguments += ["--peer", f"127.0.0.1:{node.peer}", "--http", f"127.0.0.1:{node.http}"]
        kill = asyncio.create_task(self.kill()) if self.chance.random() < 0.5 else None
        attempts = await self.repeat(*arguments)
        if kill is not None:
            await kill
        if action == "add":
            self.members.append(name)
        else:
            self.members.remove(name)
        await self.load.more(50)
        seconds = time.monotonic() - begin
        what = f"{action} {name}" + (", with a kill meanwhile" if kill else "")
        self.rows.append((what, ",".join(self.members), f"{seconds:.1f} s", attempts, self.load.acknowledged - before))

    async def repeat(self, *arguments: str) -> int:
        """Run a command until it succeeds: what a kill cut short is continued; returns the attempts."""
        printed = ""
        for attempt in range(1, ATTEMPTS + 1):
            code, printed = await replicad(self.cluster, *arguments, "--timeout", "20")
            if code == 0:
                return attempt
            note(f"replicad {' '.join(arguments)}: exit code {code}, {' '.join(printed.split())[:200]}")
            await asyncio.sleep(0.5)
        raise AssertionError(f"replicad {' '.join(arguments)} failed {ATTEMPTS} times: {printed}")

    async def kill(self) -> None:
        """Kill -9 a random member, start it again, and wait until it serves."""
        victim = self.cluster[self.chance.choice(self.members)]
        self.kills += 1
        victim.kill()
        await asyncio.sleep(self.chance.uniform(0.1, 1.0))
        victim.start()
        await until(f"{victim.name} is ready again", victim.ready)

    async def agree(self) -> None:
        """Every node names the same members."""
        for node in self.cluster.nodes.values():

            async def same(node: Node = node) -> bool:
                said = await describe(node, "default")
                return sorted(said["members"]) == sorted(self.members) and not said["mirrors"]

            await until(f"{node.name} says that the members are {', '.join(self.members)}", same)


async def grow(options: argparse.Namespace) -> Report:
    """1 -> 3 -> 5 -> 3, then read and judge everything."""
    settings = {"groups.default": {"protocol": f'"{options.protocol}"'}}
    async with cluster_for(options, 1, settings) as cluster:
        await cluster.ready()
        seed = options.seed if options.seed is not None else random.randrange(10**6)
        note(f"seed {seed}")

        def running_nodes() -> list[Node]:
            return [node for node in cluster.nodes.values() if node.running] or list(cluster.nodes.values())

        async with Histories(running_nodes, options.writers, options.readers) as load:
            growing = Growing(cluster, load, seed)
            for action, name in PLAN:
                chosen = name or growing.chance.choice(growing.members)
                note(f"{action} {chosen}")
                await growing.change(action, chosen)
                for _ in range(options.kills):
                    await growing.kill()
                    await load.more(50)
        note("reading everything at every node, and judging the history")
        await growing.agree()
        for node in cluster.nodes.values():
            await load.read_everything(node)
        slot = await cluster.converged(*growing.members)
    failure = load.judge()
    columns = ("change", "members then", "time", "attempts", "acknowledged meanwhile")
    title = (
        f"{load.acknowledged} writes and {load.read} reads, {growing.kills} kills, {load.indefinite} outcomes unknown, "
        f"{load.refused} refused; digests equal at slot {slot}"
    )
    table(options, title, columns, growing.rows)
    counts = {name: getattr(load, name) for name in ("acknowledged", "read", "indefinite", "refused")}
    expect(len(growing.members) == 3, f"there are {len(growing.members)} members")
    return {
        "seed": seed,
        "kills": growing.kills,
        **counts,
        "steps": growing.rows,
        "failures": [failure] * bool(failure),
    }


def main() -> None:
    """Run the drill."""
    options = parser(
        "A cluster of one node grows to three and five and shrinks to three with `replicad member add` and `remove`,\n"
        "under load, with kill -9 and restart of random members in between and meanwhile. The whole history must be\n"
        "linearizable, with every key read at every node at the end, and the digests of all members equal.",
        ".venv/bin/python -m drills.grow --kills 2",
    )
    options.add_argument("--kills", type=int, default=2, help="after each change (default: %(default)s)")
    options.add_argument("--writers", type=int, default=8, help="default: %(default)s")
    options.add_argument("--readers", type=int, default=4, help="default: %(default)s")
    options.add_argument("--protocol", choices=["remote-write", "active"], default="remote-write")
    options.add_argument("--seed", type=int, help="for who is killed and removed (default: a random one)")
    run(grow, options.parse_args())


if __name__ == "__main__":
    main()
