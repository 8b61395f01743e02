import asyncio
from contextlib import asynccontextmanager

import pytest

from replicad.lab.bench import load
from replicad.lab.bench.figures import Figures, Latencies, Round, Tally, table
from replicad.lab.bench.load import KEYS_PER_CLIENT, Target, Work, drive
from replicad.lab.bench.plan import Cell, Plan, cells, parse_mix, parse_sizes, size_label

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("100", [100]), ("100,4KiB, 64kib", [100, 4096, 65536]), ("1 MiB", [1048576]), ("7B,", [7])],
)
def test_sizes_are_read(text, sizes):
    """A size is a number of bytes, KiB or MiB."""
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize(
    ("text", "words"), [("", "no size"), ("3x", "'3x' is not a size"), ("-1", "not a size"), ("0", "1 to"),
                        ("17MiB", "1 to"), ("4KB", "bytes, KiB or MiB")],
)  # fmt: skip
def test_bad_sizes_get_a_sentence(text, words):
    """What is no size is refused with what would be one."""
    with pytest.raises(ValueError, match=words):
        parse_sizes(text)


def test_mixes_are_read():
    """A mix is a word, or percentages of puts and gets that make a hundred."""
    assert [parse_mix(text) for text in ("put", "get", "90/10", "0/100")] == [100, 0, 90, 0]
    for text in ("", "puts", "90", "90/20", "a/b", "-10/110"):
        with pytest.raises(ValueError, match="is not a mix"):
            parse_mix(text)


def test_cells_take_turns():
    """Each round measures every cell once, the groups of one size next to each other; a cell is measured once."""
    plan = Plan(cells(["a", "b"], [1, 2, 1]), rounds=2)
    one_round = [Cell("a", 1), Cell("b", 1), Cell("a", 2), Cell("b", 2)]
    assert list(plan.turns()) == [(number, cell) for number in (0, 1) for cell in one_round]
    with pytest.raises(ValueError, match="the most is 100"):
        cells([f"g{number}" for number in range(101)], [1])


def test_labels_of_sizes():
    """A size is shown as one would write it."""
    assert [size_label(size) for size in (1, 100, 1025, 4096, 1048576)] == ["1 B", "100 B", "1025 B", "4 KiB", "1 MiB"]


def test_quantiles_are_exact_to_two_per_cent():
    """The median and the 99th percentile of known durations come out again, also merged from two parts."""
    whole, part = Latencies(), Latencies()
    for number in range(1, 1001):
        (whole if number % 3 else part).add(number / 1000)
    whole.merge(part)
    assert whole.count == 1000
    assert whole.quantile(0.5) == pytest.approx(0.5, rel=0.02)
    assert whole.quantile(0.99) == pytest.approx(0.99, rel=0.02)
    assert Latencies().quantile(0.5) is None


def tally(writes, reads=0, seconds=2.0, errors=()):
    found = Tally(seconds=seconds, written=writes)
    for _ in range(writes):
        found.writes.add(0.004)
    for _ in range(reads):
        found.reads.add(0.001)
    for what in errors:
        found.error(what)
    return found


def test_the_figures_of_a_cell():
    """Rates are medians of rounds, bytes are per acknowledged write, and what a node does not say is unknown."""
    figures = Figures(Cell("orders", 4096), "active")
    figures.rounds += [
        Round(tally(100), "n2", False, 5_000, 40_000),
        Round(tally(300, errors=["503 busy", "429"]), "n2", False, 15_000, 120_000),
        Round(tally(200), "n2", False, 20_000, 80_000),
    ]
    assert figures.rates() == [50, 150, 100]
    assert figures.sent() == (40_000, 66.66666666666667)
    said = figures.as_json()
    assert said["writes"]["per_second"] == {"median": 100, "rounds": [50, 150, 100]}
    assert said["writes"]["p99_ms"] == pytest.approx(4, rel=0.02)
    assert said["reads"]["median_ms"] is None
    assert (said["coordinator_sent_bytes_per_write"], said["all_sent_bytes_per_write"]) == (66.7, 400)
    assert (said["errors"], said["first_error"]) == (2, "503 busy")
    columns, (row,) = table([figures])
    found = dict(zip(columns, row, strict=True))
    assert (found["Writes/s"], found["min-max"], found["Errors"]) == ("100", "50-150", "2")
    assert (found["Coordinator sent/write"], found["All sent/write"]) == ("67 B", "400 B")
    assert "Reads/s" not in columns
    figures.rounds.append(Round(tally(1, reads=10), "n3", True, None, None))
    assert figures.sent() is None
    columns, (row,) = table([figures])
    found = dict(zip(columns, row, strict=True))
    assert found["Coordinator"] == "n2,n3 (moved)"
    assert (found["Coordinator sent"], found["Reads/s"]) == ("?", "0")


@asynccontextmanager
async def server(answer):
    """An HTTP server that gives ``answer(request)`` (b"": hangs up, None: says nothing); gives (target, requests)."""
    requests = []

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                body = await reader.readexactly(int(length or 0))
                requests.append((head.split(b"\r\n")[0].decode(), body))
                said = answer(requests[-1][0])
                if said == b"":
                    break
                if said is not None:
                    writer.write(said)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield Target("127.0.0.1", listening.sockets[0].getsockname()[1]), requests


async def test_clients_write_their_own_keys_and_every_answer_counts():
    """Each client overwrites a few keys of its own with values of the size that was asked for, never the same twice."""
    async with server(lambda _: OK) as (target, requests):
        found = await drive([target], 3, Work("bench/x/", "orders", 20, ack="one"), 0.2)
    assert found.errors == 0
    assert 0 < found.writes.count <= found.written <= len(requests)
    assert {len(body) for _, body in requests} == {20}
    assert all(line.startswith("PUT /v1/kv/bench/x/") and "?ns=orders&ack=one" in line for line, _ in requests)
    assert len({line for line, _ in requests}) <= 3 * KEYS_PER_CLIENT
    assert len(set(requests)) == len(requests)


async def test_reads_find_keys_that_were_written_before():
    """A mix with reads writes every key first, and counts neither those writes nor anything else twice."""
    async with server(lambda _: OK) as (target, requests):
        found = await drive([target], 2, Work("bench/x/", "default", 5, put_percent=0), 0.2)
    first, rest = requests[: 2 * KEYS_PER_CLIENT], requests[2 * KEYS_PER_CLIENT :]
    assert len({line for line, _ in first}) == 2 * KEYS_PER_CLIENT
    assert all(line.startswith("PUT ") for line, _ in first)
    assert all(line.startswith("GET ") and "&raw" in line for line, _ in rest)
    assert found.writes.count == found.written == 0
    assert 0 < found.reads.count <= len(rest)


async def test_refusals_and_hang_ups_are_errors(monkeypatch):
    """What is refused or lost is counted, with the first reason, and the clients go on."""
    monkeypatch.setattr(load, "RETRY_SECONDS", 0.01)
    answers = iter([b"HTTP/1.1 429 X\r\nContent-Length: 8\r\n\r\ntoo many", b"", OK])
    async with server(lambda _: next(answers, OK)) as (target, _):
        found = await drive([target], 1, Work("bench/x/", "default", 1), 0.3)
    assert found.errors == 2
    assert found.first_error == "429 too many"
    assert found.written > 0


async def test_it_ends_when_nobody_answers(monkeypatch):
    """A server that says nothing, or is not there, does not hold the load up."""
    monkeypatch.setattr(load, "GRACE_SECONDS", 0.1)
    async with server(lambda _: None) as (target, _):
        found = await drive([target], 2, Work("bench/x/", "default", 1), 0.1)
    assert (found.errors, found.first_error) == (2, "an answer did not come in time")
    found = await drive([target], 2, Work("bench/x/", "default", 1), 0.1)
    assert found.errors >= 2
    assert "cannot be reached" in found.first_error
