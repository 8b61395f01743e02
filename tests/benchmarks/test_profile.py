"""The profile: every sample belongs to one part, and the parts add up to what the kernel charged."""

import os

from benchmarks.profile import PARTS, cpu_seconds, divide

RAW = """\
main (a.py);Writes.on_results (replicad/node/writes.py);PlainConnection.answer (replicad/http/plain.py) 30
main (a.py);Executor.run (replicad/core/group/executor.py);Machine.apply (replicad/core/kv/machine.py) 50
thread (t.py);MessageLog._run (replicad/node/wal.py);MessageLog._write (replicad/node/wal.py) 10
main (a.py);Runner.run (asyncio/runners.py) 10
"""


def test_samples_are_divided_among_the_parts():
    """A sample counts for the first part that fits any of its frames; the rest goes to the last part."""
    found = dict(divide(RAW, 200.0))
    assert found["answers: format and socket write"] == 60.0
    assert found["apply: state machine and store"] == 100.0
    assert found["message log (its thread)"] == 20.0
    assert found[PARTS[-1][0]] == 20.0
    assert sum(found.values()) == 200.0


def test_no_samples_cost_nothing():
    """A process that was never seen running has no shares."""
    assert set(dict(divide("", 100.0)).values()) == {0.0}


def test_cpu_time_of_a_process_rises():
    """The time is read from the kernel's books."""
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) == before:
        pass
    assert cpu_seconds(os.getpid()) > before
