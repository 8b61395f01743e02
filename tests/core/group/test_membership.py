import pytest

from replicad.core.detection.patience import Patience
from replicad.core.group.membership import ESTRANGED_HEARTBEATS, STRANGERS_HEARTBEATS
from replicad.core.journal.records import FormationRecord
from replicad.core.model import messages as m
from replicad.core.model.configuration import Configuration
from replicad.core.model.operations import CONFIGURATION, decode_batch
from tests.core.group.rigs import (
    HEARTBEAT,
    LIMITS,
    TICK,
    Rig,
    batch,
    configuration_of,
    disk_of,
    durable_state,
    epoch_of,
    names,
    operation,
)

NEW = "a new disk"


def introduce(node, state="empty", disk=None, committed=0, echo=7, configuration=b""):
    """What a node says of itself to the process of the rig, whose boot id is 7."""
    return m.Introduce(
        boot=3,
        echo=echo,
        disk=disk or disk_of(node),
        state=state,
        committed=committed,
        applied=committed,
        configuration=configuration,
    )


def formed(rig):
    return [record for record in rig.records if isinstance(record, FormationRecord)]


def obstacles(rig):
    return [obstacle.sentence for obstacle in rig.replica.membership.obstacles()]


# --- first formation (M5) -------------------------------------------------------------------------------------------


def test_a_group_forms_when_all_initial_members_are_here_and_empty():
    """The first initial member records everybody's disk, durably, before it tells the others."""
    rig = Rig(formed=False, flushing=False)
    rig.step("n2", introduce("n2"))
    rig.step("n3", introduce("n3"))
    rig.wait(TICK)
    assert formed(rig) == [FormationRecord(configuration_of().encode())]
    assert rig.of(m.Form) == []
    rig.flush()
    assert [(to, message) for to, message in rig.sent if isinstance(message, m.Form)] == [
        (node, m.Form(configuration_of().encode())) for node in ("n2", "n3")
    ]


@pytest.mark.parametrize(
    "introductions",
    [
        [introduce("n2")],
        [introduce("n2"), introduce("n3", "lost")],
        [introduce("n2"), introduce("n3", "formed", committed=5)],
        [],
    ],
    ids=["one is absent", "one lost its data", "one holds data", "all are absent"],
)
def test_a_group_does_not_form_otherwise(introductions):
    """While one initial member is absent, or had data, the others wait for ever: it may know the past (M5)."""
    rig = Rig(formed=False)
    for _ in range(3 * Patience.FORMATION.heartbeats):
        for node, message in zip(("n2", "n3"), introductions, strict=False):
            rig.step(node, message)
        rig.wait(HEARTBEAT)
    assert formed(rig) == []
    assert rig.replica.role == "unformed"


def test_a_founder_that_was_wiped_does_not_form_what_others_hold():
    """A group that grew from one member is not formed anew by it: nodes that it can reach are asked first (M5)."""
    rig = Rig(count=1, formed=False, neighbours=("n2", "n3"))
    rig.wait(TICK)
    assert [to for to, message in rig.sent if isinstance(message, m.Introduce)] == ["n2", "n3"]
    rig.step("n3", introduce("n3", state="formed"))
    rig.wait(2 * STRANGERS_HEARTBEATS * HEARTBEAT)
    assert formed(rig) == []
    assert obstacles(rig) == ["n3 holds data of this group"]


def test_a_founder_forms_alone_when_nobody_objects():
    """With nodes around that hold nothing, a group of one forms after it gave them time to say so."""
    rig = Rig(count=1, formed=False, neighbours=("n2", "n3"))
    rig.step("n2", introduce("n2"))
    rig.wait((STRANGERS_HEARTBEATS - 1) * HEARTBEAT)
    assert (formed(rig), rig.catalog_stale) == ([], 0)
    rig.wait(2 * HEARTBEAT)
    assert (len(formed(rig)), rig.catalog_stale) == (1, 1)


def test_an_old_introduction_does_not_count():
    """Members must be present at the same time."""
    rig = Rig(formed=False)
    rig.step("n2", introduce("n2"))
    rig.wait(Patience.FORMATION.heartbeats * HEARTBEAT + TICK)
    rig.step("n3", introduce("n3"))
    rig.wait(5 * HEARTBEAT)
    assert formed(rig) == []


def test_words_to_an_earlier_process_do_not_count():
    """An introduction that was meant for an earlier process of this node may be as old as the group itself."""
    rig = Rig(formed=False)
    for _ in range(5):
        rig.step("n2", introduce("n2"))
        rig.step("n3", introduce("n3", echo=99))
        rig.wait(HEARTBEAT)
    assert formed(rig) == []
    rig.step("n3", introduce("n3"))
    rig.wait(TICK)
    assert len(formed(rig)) == 1


def test_only_the_first_initial_member_forms():
    """Two members never form two groups."""
    rig = Rig("n2", formed=False)
    rig.step("n1", introduce("n1"))
    rig.step("n3", introduce("n3"))
    rig.wait(5 * HEARTBEAT)
    assert formed(rig) == []


def test_a_damaged_member_does_not_form():
    """A node whose data was damaged knows that there was a past."""
    rig = Rig(formed=False, lost=True)
    rig.step("n2", introduce("n2"))
    rig.step("n3", introduce("n3"))
    rig.wait(5 * HEARTBEAT)
    assert formed(rig) == []
    assert {message.state for message in rig.of(m.Introduce)} == {"lost"}


def test_a_member_with_a_promise_is_not_empty():
    """Whoever promised something took part in a group, even without a configuration."""
    rig = Rig(formed=False, promised=epoch_of("n2"))
    rig.step("n2", introduce("n2"))
    rig.step("n3", introduce("n3"))
    rig.wait(5 * HEARTBEAT)
    assert formed(rig) == []


@pytest.mark.parametrize(
    ("fields", "configuration", "taken"),
    [
        ({}, configuration_of(), True),
        ({"disk": NEW}, configuration_of(), False),
        ({"lost": True}, configuration_of(), False),
        ({"promised": 5}, configuration_of(), False),
    ],
    ids=["its own empty disk", "another disk", "a damaged disk", "a disk that promised"],
)
def test_a_member_records_a_configuration_only_for_its_empty_disk(fields, configuration, taken):
    """`Form` is taken by exactly the empty disk that it names."""
    rig = Rig("n2", formed=False, **fields)
    rig.step("n1", m.Form(configuration.encode()))
    assert (formed(rig) == [FormationRecord(configuration.encode())]) is taken
    assert rig.replica.role == ("follower" if taken else "unformed")


def test_a_broken_configuration_is_ignored():
    """Bytes that are no configuration form nothing."""
    rig = Rig("n2", formed=False)
    rig.step("n1", m.Form(b"nonsense"))
    assert formed(rig) == []


def test_a_configuration_is_recorded_once():
    """A second `Form` does not replace what was recorded."""
    rig = Rig("n2", formed=False)
    rig.step("n1", m.Form(configuration_of().encode()))
    other = Configuration.initial({node: disk_of(node) if node == "n2" else NEW + node for node in names(3)})
    rig.step("n1", m.Form(other.encode()))
    assert formed(rig) == [FormationRecord(configuration_of().encode())]


def test_obstacles_say_who_is_missing():
    """An unformed node says in words what it waits for."""
    rig = Rig(formed=False)
    rig.step("n2", introduce("n2", "lost"))
    assert obstacles(rig) == ["n2 had data and lost it", "n3 is not in touch"]


# --- re-admission (M1, M3, M4) --------------------------------------------------------------------------------------


def coordinator(*live, count=3):
    rig = Rig(count=count)
    rig.elect()
    rig.acknowledge(*live)
    rig.serve(2 * HEARTBEAT, *live)
    return rig


def proposals(rig):
    """Return ``(slot, configuration)`` of every configuration entry in the log."""
    found = []
    for slot, _, value in rig.slots():
        kind, payload = decode_batch(value)
        if kind == CONFIGURATION:
            found.append((slot, Configuration.decode(payload)))
    return found


def meet(rig, duration, *live, committed=0, disk=NEW):
    """Let time pass while n3 introduces a new disk and these peers answer and accept."""
    end = rig.now + duration
    while rig.now < end:
        rig.step("n3", introduce("n3", "formed" if committed else "empty", disk, committed), disk=disk)
        rig.serve(HEARTBEAT, *live)
        rig.accept_all(*live)


def test_a_new_disk_is_admitted_through_the_log():
    """The coordinator replaces the disk in the configuration by an entry that knows its slot."""
    rig = coordinator("n2")
    meet(rig, 10 * HEARTBEAT, "n2")
    assert proposals(rig) == [(1, configuration_of().with_disk("n3", NEW, 1))]
    assert rig.replica.committed == 1
    assert rig.replica.state.configuration.member("n3").since == 1


def test_a_new_disk_is_told_to_catch_up_first():
    """A disk that lacks too much gets a welcome and no admission, however long it waits."""
    rig = coordinator("n2")
    for number in range(LIMITS.join_lag_slots + 1):
        rig.submit(operation(number))
    rig.accept_all("n2")
    meet(rig, 10 * HEARTBEAT, "n2")
    assert proposals(rig) == []
    assert rig.of(m.Welcome)[-1] == m.Welcome(rig.replica.epoch, LIMITS.join_lag_slots + 1)
    meet(rig, 10 * HEARTBEAT, "n2", committed=1)
    assert len(proposals(rig)) == 1


def test_a_configuration_waits_until_everything_below_is_committed():
    """No configuration entry is proposed while a slot below is open, and nothing new is assigned meanwhile (M1)."""
    rig = coordinator("n2")
    rig.submit(operation(1))
    rig.step("n3", introduce("n3", disk=NEW), disk=NEW)
    rig.wait(TICK)
    assert proposals(rig) == []
    rig.submit(operation(2))
    assert [slot for slot, *_ in rig.slots()] == [1]
    rig.accept_all("n2")
    rig.step("n3", introduce("n3", disk=NEW), disk=NEW)
    rig.serve(HEARTBEAT, "n2")
    assert [slot for slot, _ in proposals(rig)] == [2]


def test_nothing_is_assigned_above_an_open_configuration():
    """The entry's slot is the last one until it is committed (M1)."""
    rig = coordinator("n2")
    rig.step("n3", introduce("n3", disk=NEW), disk=NEW)
    rig.serve(HEARTBEAT, "n2", matched=0)
    assert [slot for slot, _ in proposals(rig)] == [1]
    rig.submit(operation(1))
    assert [slot for slot, *_ in rig.slots()] == [1]
    rig.accept_all("n2")
    assert [slot for slot, *_ in rig.slots()] == [1, 2]


def test_a_holder_leaves_the_view_before_its_disk_is_replaced():
    """The old disk may still be read under its lease: its admission waits for the end of the last grant (M3)."""
    rig = coordinator("n2", "n3")
    peer = rig.replica.office.authority.peers["n3"]
    assert "n3" in rig.replica.view
    while not proposals(rig):
        assert rig.now < peer.granted_until + 10 * HEARTBEAT
        granted_until = peer.granted_until
        rig.step("n3", introduce("n3", disk=NEW), disk=NEW)
        rig.serve(TICK, "n2")
    assert rig.now >= granted_until
    assert "n3" not in rig.replica.view


def test_a_member_whose_disk_still_answers_is_not_replaced():
    """Two processes that claim one name: the one in the configuration stays."""
    rig = coordinator("n2", "n3")
    for _ in range(20):
        rig.step("n3", introduce("n3", disk=NEW), disk=NEW)
        rig.serve(HEARTBEAT)
    assert proposals(rig) == []


def test_the_acceptances_of_a_replaced_disk_do_not_count():
    """Above the entry only the new disk counts (M4)."""
    rig = coordinator("n2")
    meet(rig, 10 * HEARTBEAT, "n2")
    rig.submit(operation(1))
    slot = rig.highest
    rig.step("n3", m.Accepted(rig.replica.epoch, slot, False), disk=disk_of("n3"))
    assert rig.replica.committed == slot - 1
    rig.step("n3", m.Accepted(rig.replica.epoch, slot, False), disk=NEW)
    rig.wait(TICK)
    assert rig.replica.office.majority_matched(slot) == slot


# --- the newcomer (M4) ----------------------------------------------------------------------------------------------


def test_a_newcomer_votes_once_it_holds_the_slot_that_admitted_it():
    """It is silent until it has the entry, and then it has durably promised the epoch that admitted it."""
    rig = Rig("n3", disk=NEW, flushing=False)
    admitted = configuration_of().with_disk("n3", NEW, 2)
    epoch = epoch_of("n1", 4)
    rig.step("n1", m.Accept(epoch, 1, 1, 0, (batch(1),)))
    rig.flush()
    assert rig.of(m.Accepted) == []
    assert rig.replica.role == "learner"
    entry = msgpack_configuration(admitted)
    rig.step("n1", m.Slots(1, 2, ((1, epoch, 0, batch(1)), (2, epoch, 0, entry))))
    assert rig.replica.role == "follower"
    assert formed(rig) == [FormationRecord(admitted.encode())]
    assert rig.replica.state.promised == epoch
    rig.step("n1", m.Accept(epoch, 1, 3, 0, (batch(3),)))
    assert rig.of(m.Accepted) == []
    rig.flush()
    assert rig.of(m.Accepted) == [m.Accepted(epoch, 3, False)]


def msgpack_configuration(configuration):
    from replicad.core.model.operations import encode_batch

    return encode_batch(CONFIGURATION, configuration.encode())


def test_a_newcomer_fetches_from_whoever_welcomes_it():
    """A node that is no voter catches up with the coordinator that offered itself."""
    rig = Rig("n3", disk=NEW)
    rig.step("n1", m.Welcome(epoch_of("n1"), 5))
    rig.wait(3 * HEARTBEAT)
    assert ("n1", m.FetchSlots(1)) in rig.sent


def test_survivors_fetch_committed_slots_without_a_coordinator():
    """A member with an older configuration gets the slot that admits a peer from whoever has it."""
    rig = Rig("n2")
    newer = configuration_of().with_disk("n3", NEW, 4).encode()
    rig.step("n3", introduce("n3", "formed", disk=NEW, committed=4, configuration=newer), disk=NEW)
    rig.wait(3 * HEARTBEAT)
    assert ("n3", m.FetchSlots(1)) in rig.sent


def test_a_voter_with_an_older_configuration_takes_a_welcome():
    """A member that does not know the coordinator's new disk ignores its heartbeats; it must fetch what it missed."""
    rig = Rig("n2")
    rig.step("n1", m.Welcome(epoch_of("n1", 4), 5), disk=NEW)
    rig.wait(3 * HEARTBEAT)
    assert ("n1", m.FetchSlots(1)) in rig.sent


def test_a_commit_is_announced_at_once_also_to_who_has_all_slots():
    """That one member needs an Accept again does not keep the news from the others until the next heartbeat."""
    rig = coordinator("n2")
    rig.step("n3", introduce("n3", disk=NEW), disk=NEW)
    rig.serve(HEARTBEAT, "n2", matched=0)
    assert [slot for slot, _ in proposals(rig)] == [1]
    sent = rig.step("n2", m.Accepted(rig.replica.epoch, 1, False))
    assert rig.replica.committed == 1
    assert 1 in [message.committed for to, message in sent if to == "n2"]


# --- nodes that are no founders -------------------------------------------------------------------------------------


def newcomer():
    """A node n9 with nothing on its disk, which knows n1 to n3 by name."""
    return Rig("n9", formed=False)


def test_a_newcomer_never_forms_the_group():
    """Only initial members form it, however empty everybody is."""
    rig = newcomer()
    for node in names(3):
        rig.step(node, introduce(node))
    rig.wait(10 * HEARTBEAT)
    assert formed(rig) == []
    assert {to for to, message in rig.sent if isinstance(message, m.Introduce)} == set(names(3))


def say(rig, configuration, sender="n1", **fields):
    """A voter with this configuration introduces itself to the rig."""
    said = introduce(sender, "formed", **fields)
    rig.step(sender, m.Introduce(said.boot, 7, said.disk, "formed", 5, 5, configuration.encode()))


def test_a_newcomer_asks_seldom_until_it_is_added():
    """A node that the group does not name is no burden to it, and says what it waits for."""
    rig = newcomer()
    say(rig, configuration_of())
    rig.take_sent()
    rig.wait(5_000_000)
    assert 4 <= len([to for to, message in rig.sent if to == "n1"]) <= 6
    assert rig.replica.role == "unformed"
    assert obstacles(rig) == ["this node waits to be added to the group"]


def test_a_newcomer_that_finds_nobody_says_so():
    """Without a voter it cannot even be added."""
    assert obstacles(newcomer()) == ["no voter is in touch"]


def test_a_newcomer_learns_of_voters_that_it_was_not_told_of():
    """The founders may all be gone: whoever answers names the voters of today."""
    rig = newcomer()
    say(rig, configuration_of(3).with_mirror("n4", 1).with_voter("n4", "disk-n4", 2).without("n2", 3))
    rig.wait(2_000_000)
    assert "n4" in {to for to, message in rig.sent if isinstance(message, m.Introduce)}


def test_a_node_that_was_added_is_a_mirror_as_soon_as_it_hears_so():
    """It records the configuration that names it before it has any slot."""
    rig = newcomer()
    configuration = configuration_of().with_mirror("n9", 5)
    rig.step("n1", m.MirrorHeartbeat(epoch_of("n1"), 2, 5, 0, b"", 0, b""))
    assert [type(message) for to, message in rig.take_sent() if to == "n1"] == [m.Introduce]
    say(rig, configuration)
    assert rig.replica.role == "mirror"
    assert formed(rig) == [FormationRecord(configuration.encode())]
    assert rig.step("n1", m.Welcome(epoch_of("n1"), 5)) == [("n1", m.FetchSlots(1))]
    assert rig.replica.coordinator == "n1"


def test_a_coordinator_welcomes_mirrors_and_no_strangers():
    """Who is not named is told the configuration, and nothing else."""
    durable = durable_state()
    durable.formation = configuration_of().with_mirror("n9", 0).encode()
    rig = Rig(durable=durable)
    rig.elect()
    kinds = {}
    for node in ("n8", "n9"):
        kinds[node] = [type(message) for _, message in rig.step(node, introduce(node))]
    assert kinds == {"n8": [m.Introduce], "n9": [m.Introduce, m.Welcome]}


def test_broken_configurations_of_others_are_ignored():
    """An introduction with nonsense in it teaches nothing."""
    rig = Rig("n3")
    rig.step("n1", m.Introduce(3, 7, disk_of("n1"), "formed", 0, 0, b"nonsense"))
    assert rig.replica.state.configuration == configuration_of()


def test_an_older_configuration_teaches_nothing():
    """A voter that was away does not undo what happened meanwhile."""
    durable = durable_state()
    newer = configuration_of().with_mirror("n9", 0).with_protocol("active", 0)
    durable.formation = newer.encode()
    rig = Rig("n3", durable=durable)
    say(rig, configuration_of().without("n3", 0))
    assert rig.replica.state.configuration == newer


def test_a_newcomer_without_a_coordinator_fetches_the_slot_that_gives_it_its_vote():
    """It may be the one that is needed to elect a coordinator: it asks whoever has more."""
    durable = durable_state(entries=[(1, epoch_of("n1"), batch(1))], committed=1)
    durable.formation = configuration_of().with_mirror("n9", 0).with_voter("n9", disk_of("n9"), 2).encode()
    rig = Rig("n9", durable=durable)
    assert rig.replica.role == "learner"
    rig.step("n1", m.Welcome(epoch_of("n1"), 2))
    rig.wait(2 * Patience.SOURCE.heartbeats * HEARTBEAT)
    rig.take_sent()
    rig.step("n2", introduce("n2", "formed", committed=2))
    rig.wait(5 * HEARTBEAT)
    assert ("n2", m.FetchSlots(2)) in rig.sent


def test_a_disk_with_slots_but_no_configuration_fetches_only_from_who_has_admitted_it():
    """A directory of another past has a configuration, too, but none that holds this disk."""
    durable = durable_state(entries=[(1, epoch_of("n1"), batch(1))], committed=1)
    durable.formation = b""
    rig = Rig("n3", disk=NEW, lost=True, durable=durable)
    assert rig.replica.state.configuration is None
    rig.step("n2", introduce("n2", "formed", committed=4, configuration=configuration_of().encode()))
    rig.wait(3 * HEARTBEAT)
    assert [message for _, message in rig.sent if isinstance(message, m.FetchSlots)] == []
    admitting = configuration_of().with_disk("n3", NEW, 4).encode()
    rig.step("n1", introduce("n1", "formed", committed=4, configuration=admitting))
    rig.wait(3 * HEARTBEAT)
    assert ("n1", m.FetchSlots(2)) in rig.sent


def test_an_empty_disk_fetches_from_nobody_but_a_coordinator_and_who_has_admitted_it():
    """A directory of another past may have this cluster's id: an older copy, or a branch that was recovered alone."""
    rig = Rig("n3", disk=NEW, lost=True, formed=False)
    of_others = configuration_of().encode()
    rig.step("n2", introduce("n2", "formed", committed=4, configuration=of_others))
    rig.wait(3 * HEARTBEAT)
    assert rig.of(m.FetchSlots) == []
    rig.step("n2", m.Welcome(epoch_of("n2"), 4))
    rig.wait(3 * HEARTBEAT)
    assert ("n2", m.FetchSlots(1)) in rig.sent


def test_slots_of_a_directory_that_was_put_under_the_source_are_not_taken():
    """They were asked for by the name of the node, and only the link tells which disk answers."""
    rig = Rig("n3", disk=NEW, lost=True, formed=False)
    rig.step("n2", m.Welcome(epoch_of("n2"), 4))
    rig.wait(3 * HEARTBEAT)
    page = m.Slots(1, 4, ((1, epoch_of("n1"), 0, batch(1)),))
    rig.step("n2", page, disk="another past's")
    assert rig.replica.committed == 0
    rig.step("n2", page)
    assert rig.replica.committed == 1


@pytest.mark.parametrize("generation", [0, 1])
def test_a_source_is_dropped_when_another_directory_or_another_life_shows(generation):
    """What it offered it does not have any more, or nobody wants it."""
    durable = durable_state()
    recovered = configuration_of().recovered("n2", disk_of("n2"), 0).with_mirror("n3", 1)
    durable.formation = (recovered if generation else configuration_of()).encode()
    rig = Rig("n3", durable=durable)
    rig.step("n2", m.Welcome(epoch_of("n2"), 4))
    assert rig.replica.membership.source.node == "n2"
    told = configuration_of().encode()
    disk = disk_of("n2") if generation else "another past's"
    rig.step("n2", introduce("n2", "formed", disk=disk, committed=4, configuration=told), disk=disk)
    assert rig.replica.membership.source.node == ""


# --- a directory of another life of the group -------------------------------------------------------------------------


def lived(node, incarnation):
    """A voter of a group with an id of its own; the cluster's is the same."""
    durable = durable_state()
    durable.formation = configuration_of().identified("cluster", incarnation).encode()
    return Rig(node, durable=durable)


def told(incarnation):
    return configuration_of().identified("cluster", incarnation).encode()


def test_who_is_of_another_life_of_the_group_is_told():
    """Heartbeats tell it nothing: its own configuration has other disks under the same names."""
    rig = lived("n1", "today's")
    rig.elect()
    rig.take_sent()
    foreign = introduce("n3", "formed", disk="other", committed=9, configuration=told("earlier"))
    said = rig.step("n3", foreign, disk="other")
    assert [(to, type(message)) for to, message in said] == [("n3", m.Introduce)]
    assert rig.step("n3", foreign, disk="other") == []


def test_a_majority_of_another_life_says_that_this_directory_is_none_of_the_groups():
    """One of two may be the one that is out of place."""
    rig = lived("n3", "earlier")
    for node, estranged in (("n1", False), ("n2", True)):
        rig.step(node, introduce(node, "formed", committed=9, configuration=told("today's")))
        rig.wait((ESTRANGED_HEARTBEATS + 1) * HEARTBEAT)
        assert rig.replica.membership.estranged() is estranged
    assert rig.replica.membership.source.node == ""


def test_a_configuration_of_another_cluster_forms_nothing():
    """This directory knows to which cluster it belongs."""
    for cluster, taken in (("another", False), ("ours", True)):
        rig = Rig("n2", formed=False)
        rig.replica.state.belong("ours")
        configuration = configuration_of().identified(cluster, "life").encode()
        rig.step("n1", m.Form(configuration))
        assert (formed(rig) == [FormationRecord(configuration)]) is taken
