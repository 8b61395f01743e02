"""Deleting what a node holds of a dropped group takes time in the simulator, as it does in a real node."""

from replicad.core.journal.records import DroppedRecord
from replicad.lab.crash_points import STORE_DELETED
from replicad.lab.simulator import Simulator
from replicad.lab.swarm import draw
from replicad.lab.transcript import Transcript

OTHER = "orders.00000001"


def running():
    """Return a cluster of three nodes, and one of them with data of a group that was dropped."""
    seed = next(seed for seed in range(1, 100) if draw(seed, 3).catalog)
    simulator = Simulator(seed, draw(seed, 3), Transcript(keep=0))
    simulator.check_deletion = lambda *_: None
    simulator.start_all()
    simulator.run_for(500_000)
    node = simulator.nodes["n1"]
    node.of(OTHER).files.restore({5: b"a checkpoint", 9: b"another one"})
    return simulator, node


def test_the_process_is_busy_while_it_deletes_and_its_log_goes_on():
    """A record that was appended before a deletion is durable before that is done."""
    simulator, node = running()
    node.deletion_delay = lambda: 1_000_000
    durable = []
    node.process.log.append([(OTHER, DroppedRecord())], lambda: durable.append(simulator.queue.now))
    node.process.ports.delete_store(OTHER)
    node.process.ports.delete_checkpoints(OTHER)
    simulator.run_for(900_000)
    assert node.process.paused
    assert durable
    assert node.of(OTHER).files.slots() == [9, 5]
    simulator.run_for(2_500_000)
    assert not node.process.paused
    assert node.of(OTHER).files.slots() == []


def test_what_a_process_that_dies_had_still_to_delete_stays():
    """Death after the store leaves the checkpoints, and the log that knows of them."""
    simulator, node = running()
    node.points.scale_ppm = 1_000_000
    node.points.strikes = lambda point: point == STORE_DELETED
    node.process.engine.forget_group(OTHER)
    simulator.run_for(6_000)
    assert node.process is None or node.process.ports.stopped is None
    assert node.of(OTHER).files.slots() == [9, 5]
    assert simulator.counts[f"died: {STORE_DELETED}"] == 1
