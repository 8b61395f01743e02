"""Authority and grants, with clocks that run at different rates (L2, L3)."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.group.authority import Authority
from replicad.core.model import messages as m
from tests.core.group.rigs import BEGIN, HEARTBEAT, LEASE, LIMITS, Rig, group_state, names

RATES = st.integers(-LIMITS.rate_bound_ppm // 2 + 1, LIMITS.rate_bound_ppm // 2 - 1).map(
    lambda ppm: 1 + Fraction(ppm, 1_000_000)
)
"""Rates of which no two differ by more than the bound."""
MOMENTS = st.integers(0, 2 * LEASE)


def ack(sequence, *, request=1, boot=9):
    return m.HeartbeatAck(1, sequence, boot, 0, 0, request, 0, b"", 0, b"")


def office(count=3):
    state = group_state(count=count)
    return state, Authority(state)


@given(st.integers(1, 3), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20)), max_size=30))
def test_authority_follows_the_majoritys_latest_acknowledged_heartbeats(half, acknowledged):
    """The authority is counted from the latest moment at which a majority's heartbeats were sent, in any order."""
    state, authority = office(2 * half + 1)
    peers = names(2 * half + 1)[1:]
    rounds = {}
    for _ in range(1, 21):
        state.now += HEARTBEAT
        rounds[authority.begin_round()] = state.now
    newest = dict.fromkeys(peers, -1)
    for peer, sequence in acknowledged:
        name = peers[peer % len(peers)]
        authority.on_ack(name, ack(sequence))
        newest[name] = max(newest[name], rounds.get(sequence, -1))
    candidates = [t for t in rounds.values() if sum(sent >= t for sent in newest.values()) >= half]
    expected = max(candidates) + LIMITS.shortened(LEASE) if candidates else 0
    assert authority.authority_until() == expected


def test_a_group_of_one_has_authority_always():
    """Without peers the own clock is the majority."""
    state, authority = office(1)
    state.now += 10 * LEASE
    assert authority.authority_until() == state.now + LIMITS.shortened(LEASE)
    assert not authority.lost()


@given(RATES, RATES, MOMENTS, MOMENTS)
def test_authority_ends_before_any_voters_loyalty(coordinator_rate, voter_rate, sent, travel):
    """With clocks of any rates within the bound, the coordinator stops before the voter may promise another."""
    state, authority = office(3)
    state.now = BEGIN + int(sent * coordinator_rate)
    authority.on_ack("n2", ack(authority.begin_round()))
    authority_ends = (authority.authority_until() - BEGIN) / coordinator_rate
    answered = Fraction(state.now - BEGIN) / coordinator_rate + travel
    loyalty_ends = answered + LEASE / voter_rate
    assert authority_ends <= loyalty_ends


@given(RATES, RATES, MOMENTS, MOMENTS, MOMENTS)
def test_a_lease_ends_before_its_grant_and_within_the_authority(holder_rate, coordinator_rate, asked, travel, waited):
    """In real time a holder stops reading before the coordinator takes its grant for ended, within its authority."""
    rig = Rig("n2")
    rig.now = BEGIN + int(asked * holder_rate)
    request = rig.now
    state, authority = office(3)
    arrived = Fraction(request - BEGIN) / holder_rate + travel
    state.now = BEGIN + int(arrived * coordinator_rate) + 1
    authority.on_ack("n2", ack(authority.begin_round(), request=request))
    authority.on_ack("n3", ack(authority.sequence))
    state.now += waited
    peer = authority.peers["n2"]
    granted, duration = authority.grant(peer)
    if duration == 0:
        assert state.now >= authority.authority_until()
        return
    assert granted == request
    rig.follow("n1", grant_boot=7, grant_request=granted, grant_us=duration)
    lease_ends = Fraction(rig.replica.acceptor.lease_until - BEGIN) / holder_rate
    assert lease_ends <= (peer.granted_until - BEGIN) / coordinator_rate
    assert peer.granted_until <= authority.authority_until()


def test_a_request_is_granted_once():
    """A lost grant is not repeated: its length would be counted from an old request."""
    _, authority = office()
    authority.on_ack("n2", ack(authority.begin_round(), request=77))
    peer = authority.peers["n2"]
    assert authority.grant(peer)[0] == 77
    assert authority.grant(peer) == (0, 0)
    authority.on_ack("n2", ack(authority.begin_round(), request=78))
    assert authority.grant(peer)[0] == 78


def test_who_wants_no_lease_gets_none():
    """A request of 0 gives the lease back: the grant to this member ends at once."""
    state, authority = office()
    authority.on_ack("n2", ack(authority.begin_round(), request=77))
    authority.grant(authority.peers["n2"])
    assert authority.grants_until() > state.now
    authority.on_ack("n2", ack(authority.begin_round(), request=0))
    assert authority.grants_until() <= state.now
    assert authority.grant(authority.peers["n2"]) == (0, 0)


def test_an_old_acknowledgement_does_not_undo_a_newer_one():
    """Messages overtake each other; what a member said last counts."""
    _, authority = office()
    first, second = authority.begin_round(), authority.begin_round()
    authority.on_ack("n2", ack(second, request=0))
    authority.on_ack("n2", ack(first, request=77))
    assert authority.grant(authority.peers["n2"]) == (0, 0)


def test_a_grant_outlives_the_process_that_it_was_made_to():
    """A member that restarted gave nothing back: the old process might still read, as far as anyone knows."""
    state, authority = office()
    authority.on_ack("n2", ack(authority.begin_round(), request=77))
    authority.grant(authority.peers["n2"])
    until = authority.grants_until()
    authority.on_ack("n2", ack(authority.begin_round(), request=0, boot=10))
    assert authority.grants_until() == until > state.now


@pytest.mark.parametrize(("silence", "lost"), [(LEASE, False), (LEASE + 1, True)])
def test_an_office_without_a_majoritys_answers_is_lost_after_a_lease_length(silence, lost):
    """A coordinator that can send but not hear does not stay in office (E4)."""
    state, authority = office()
    state.now += 5 * HEARTBEAT
    authority.on_ack("n2", ack(authority.begin_round()))
    state.now += silence
    assert authority.lost() is lost


def test_a_new_disk_has_acknowledged_nothing():
    """What the old disk of a member said does not count for the new one (M4)."""
    state, authority = office()
    authority.on_ack("n2", ack(authority.begin_round()))
    state.configuration = state.configuration.with_disk("n2", "new", 1)
    authority.refresh_members()
    assert authority.peers["n2"].acked_sent_at == -1
    assert authority.authority_until() == 0
