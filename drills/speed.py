"""Drill: how many reads and writes a second, and how long one takes, measured with wrk."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

from drills.harness import Report, cluster_for, note, parser, run, screen, table
from drills.loader import load

PUTS_PER_SECOND, GETS_PER_SECOND = 12_000, 25_000

COMMON = """\
local thread_number = 0
function setup(thread) thread:set("id", thread_number); thread_number = thread_number + 1 end
function init(args) math.randomseed(os.time() * 100 + id) end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "microseconds": %d, "failed": %d, "median": %d, "p99": %d}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""
PUT = """\
local number = 0
local filling = string.rep("x", %(value_bytes)d - 12)
function request()
  number = number + 1
  local key = string.format("/v1/kv/speed/%%05d", math.random(0, %(keys)d - 1))
  return wrk.format("PUT", key, nil, string.format("%%012d", number) .. filling)
end
"""
GET = """\
function request()
  return wrk.format("GET", string.format("/v1/kv/speed/%%05d", math.random(0, %(keys)d - 1)))
end
"""


async def wrk(script: Path, port: int, threads: int, connections: int, seconds: int) -> dict[str, int]:
    """Run wrk; returns what the script's ``done`` printed."""
    command = (
        "wrk",
        f"-t{threads}",
        f"-c{connections}",
        f"-d{seconds}s",
        "-s",
        str(script),
        f"http://127.0.0.1:{port}",
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    for line in output.decode().splitlines():
        if line.startswith("RESULT "):
            found: dict[str, int] = json.loads(line.removeprefix("RESULT "))
            return found
    raise AssertionError(f"wrk ended with code {process.returncode}: {output.decode()}")


async def speed(options: argparse.Namespace) -> Report:
    """Measure a cluster of its own, or the node at ``--port``."""
    if options.port:
        return await measure(options, options.port, options.port, f"port {options.port}")
    async with cluster_for(options, options.nodes) as cluster:
        primary = await cluster.primary()
        other = await cluster.follower() if options.nodes > 1 else primary
        return await measure(options, cluster[primary].http, cluster[other].http, f"{options.nodes} nodes")


async def measure(options: argparse.Namespace, primary: int, other: int, what: str) -> Report:
    """Load the keys, then run every measurement."""
    values = vars(options)
    items = iter([(f"speed/{number:05d}", b"0" * options.value_bytes) for number in range(options.keys)])
    await load(primary, options.connections, items, lambda: None)
    report: Report = {"failures": []}
    rows = []
    many, threads = options.connections, options.threads
    with tempfile.TemporaryDirectory() as directory:
        scripts = {}
        for name, text in (("PUT", PUT), ("GET", GET)):
            scripts[name] = Path(directory) / f"{name}.lua"
            scripts[name].write_text(COMMON + text % values, encoding="ascii")
        for name, script, port, connections in (
            (f"PUT at the primary, {many} connections", scripts["PUT"], primary, many),
            (f"GET at the primary, {many} connections", scripts["GET"], primary, many),
            (f"PUT at a follower, {many} connections", scripts["PUT"], other, many),
            (f"GET at a follower, {many} connections", scripts["GET"], other, many),
            ("PUT at the primary, 1 connection", scripts["PUT"], primary, 1),
            ("GET at the primary, 1 connection", scripts["GET"], primary, 1),
        ):
            note(name)
            found = await wrk(script, port, min(threads, connections), connections, options.seconds)
            rate = found["requests"] / (found["microseconds"] / 1e6)
            report[name] = found | {"per_second": rate}
            times = (f"{found['median'] / 1000:.2f} ms", f"{found['p99'] / 1000:.2f} ms")
            rows.append((name, f"{rate:,.0f}", *times, found["failed"]))
            if found["failed"]:
                report["failures"].append(f"{name}: {found['failed']} requests failed")
    for name, least in (("PUT", PUTS_PER_SECOND), ("GET", GETS_PER_SECOND)):
        rate = report[f"{name} at the primary, {many} connections"]["per_second"]
        if rate < least and not options.no_target:
            report["failures"].append(f"{name}: {rate:,.0f} a second, and {least:,} is the least")
    title = f"{what}; {options.keys} keys, values of {options.value_bytes} bytes, {options.seconds} s each"
    table(options, title, ("what", "per second", "median", "99 %", "failed"), rows)
    return report


def main() -> None:
    """Run the drill."""
    options = parser(
        "Reads and writes per second at many connections, and the latency at one, measured with wrk.",
        ".venv/bin/python -m drills.speed --seconds 10",
    )
    options.add_argument("--nodes", type=int, default=3, help="nodes of the cluster (default: %(default)s)")
    options.add_argument("--port", type=int, help="measure the node whose HTTP port this is, instead of a new cluster")
    options.add_argument("--seconds", type=int, default=10, help="each measurement (default: %(default)s)")
    options.add_argument("--connections", type=int, default=64, help="default: %(default)s")
    options.add_argument("--threads", type=int, default=1, help="threads of wrk (default: %(default)s)")
    options.add_argument("--keys", type=int, default=10_000, help="default: %(default)s")
    options.add_argument("--value-bytes", type=int, default=100, help="12 or more (default: %(default)s)")
    options.add_argument("--no-target", action="store_true", help="do not fail when it is too slow")
    chosen = options.parse_args()
    if shutil.which("wrk") is None:
        screen.print(
            "This drill needs wrk. On Debian and Ubuntu: apt install wrk; elsewhere: https://github.com/wg/wrk"
        )
        sys.exit(2)
    run(speed, chosen)


if __name__ == "__main__":
    main()
