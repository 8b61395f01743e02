"""When an office assigns slots: what is committed and not yet applied is bounded, as what is not yet committed is."""

import pytest

from replicad.core.model import messages as m
from replicad.core.model.configuration import ACTIVE, REMOTE_WRITE
from replicad.core.model.limits import Limits
from tests.core.group.rigs import SlowRig, operation

BOUND = 2


@pytest.mark.parametrize("protocol", [REMOTE_WRITE, ACTIVE])
def test_what_is_committed_and_not_applied_is_bounded(protocol):
    """A coordinator that applies more slowly than the group commits waits, and goes on with the next applied slot."""
    rig = SlowRig(limits=Limits(open_slots_max=BOUND), protocol=protocol)
    rig.elect()
    rig.acknowledge()
    for number in range(1, BOUND + 3):
        rig.submit(operation(number))
        rig.accept_all()
        for _, message in rig.take_sent(m.SlotAccept):
            for peer in rig.peers:
                rig.step(peer, m.SlotAccepted(message.epoch, message.round, message.slot))
    assert (rig.replica.committed, rig.replica.applied, rig.highest) == (BOUND, 0, BOUND)
    rig.apply()
    assert rig.highest == BOUND + 1
