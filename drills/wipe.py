"""Drill: data directories are removed or damaged; the nodes come back by themselves, or the group refuses to guess."""

from __future__ import annotations

import argparse
import shutil
import time

from drills.harness import Report, cluster_for, expect, note, parser, run, table
from tests.node.cluster import Cluster, until
from tests.node.load import Load, verify


async def lose(cluster: Cluster, load: Load, how: str) -> float:
    """Take n3 down, hurt its directory, start it; returns the seconds from its start until it is equal, under load."""
    node = cluster["n3"]
    node.kill()
    if how == "wiped":
        node.wipe()
    else:
        node.damage()
    await load.more(500)
    begin = time.monotonic()
    node.start()
    await cluster.ready("n3")
    target = max([(await other.group())["applied_slot"] for other in cluster.nodes.values()])

    async def caught_up() -> bool:
        return (await node.group())["applied_slot"] >= target

    await until("n3 has caught up", caught_up)
    return time.monotonic() - begin


async def two_of_three(cluster: Cluster, load: Load) -> tuple[float, str]:
    """Wipe n1 and n2; returns the seconds from putting n1's back until all serve, and what n3 said."""
    cluster.kill()
    kept = cluster.directory / "n1.kept"
    shutil.move(cluster["n1"].data, kept)
    cluster["n2"].wipe()
    cluster.start()

    async def advice() -> str:
        said = await cluster["n3"].missing()
        return said if "Put the lost data directories back" in said else ""

    said = str(await until("n3 says what to do", advice))
    note(f"n3 says: {said.strip()}")
    for node in cluster.nodes.values():
        answer = await node.client.put("invented", b"x")
        expect(answer.status == 503, f"{node.name} took a write: {answer.status} {answer.text}")
    load.check(await cluster["n3"].entries(f"{load.prefix}/", "stale"), "stale at n3")
    cluster.kill("n1")
    cluster["n1"].wipe()
    shutil.move(kept, cluster["n1"].data)
    begin = time.monotonic()
    cluster.start("n1")
    await cluster.ready()
    return time.monotonic() - begin, said


async def wipe(options: argparse.Namespace) -> Report:
    """One directory wiped, one damaged, two wiped."""
    rows: list[tuple[str, str]] = []
    seconds: dict[str, float] = {}
    async with cluster_for(options) as cluster:
        note(f"loading {options.keys} writes")
        async with Load(list(cluster.nodes.values()), options.writers) as load:
            await load.more(options.keys)
            for how in ("wiped", "damaged"):
                note(f"n3's directory is {how} while it is down")
                seconds[how] = await lose(cluster, load, how)
                rows.append((f"n3 {how}, from its start until it is re-admitted and equal", f"{seconds[how]:.2f} s"))
        await verify(cluster, load)
        note("n1 and n2 are wiped")
        seconds["put back"], said = await two_of_three(cluster, load)
        rows.append(("n1 and n2 wiped; from n1's directory put back until all serve", f"{seconds['put back']:.2f} s"))
        await verify(cluster, load)
    title = f"All of {load.count} acknowledged writes found at every node after each"
    table(options, title, ("what", "time"), rows)
    return {"acknowledged": load.count, "seconds": seconds, "advice": said, "failures": []}


def main() -> None:
    """Run the drill."""
    options = parser(
        "n3's directory is wiped, then damaged in the middle of its log: it comes back by itself. Then two of three\n"
        "are wiped: the group refuses, says what to do, and serves again when one old directory is put back.",
        ".venv/bin/python -m drills.wipe --keys 20000",
    )
    options.add_argument("--keys", type=int, default=20_000, help="writes before a fault (default: %(default)s)")
    options.add_argument("--writers", type=int, default=16, help="default: %(default)s")
    run(wipe, options.parse_args())


if __name__ == "__main__":
    main()
