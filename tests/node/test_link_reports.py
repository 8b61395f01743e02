"""What the event log says of links: few lines, and no warning for what passes by itself."""

import pytest
import structlog

from replicad.node.link_reports import (
    HOSTS_MAX,
    LINES_MAX,
    LINES_SECONDS,
    PATIENCE_SECONDS,
    RECENT_SECONDS,
    REMIND_SECONDS,
    STEADY_SECONDS,
    LinkReports,
)

HERE, THERE = "127.0.0.1:9001", "127.0.0.1:9002"
REFUSED = "cannot connect: Connection refused"


@pytest.fixture
def log():
    with structlog.testing.capture_logs() as lines:
        yield lines


def lose(reports, now, *, reason=REFUSED, address=HERE, channel="control", was_up=False, grave=False):
    reports.lost("n2", channel, reason, now, address=address, was_up=was_up, grave=grave)


def levels(log):
    return [line["log_level"] for line in log]


def test_addresses_that_alternate_are_told_once_each(log):
    """A peer that is tried at two addresses, with a reason at each and on both channels, costs two lines."""
    reports = LinkReports("n1")
    for turn in range(1000):
        for channel in ("control", "bulk"):
            lose(reports, turn * 0.001, address=(HERE, THERE)[turn % 2], channel=channel)
    assert [line["address"] for line in log] == [HERE, THERE]


def test_a_lasting_reason_is_repeated_rarely(log):
    """After a day of dials there is a line every ten minutes, a warning each."""
    reports = LinkReports("n1")
    for second in range(86_400):
        lose(reports, float(second))
        reports.look("n2", up=False, now=float(second))
    assert len(log) == 86_400 // REMIND_SECONDS + 1
    assert levels(log)[0] == "info"
    assert set(levels(log)[1:]) == {"warning"}


def test_reasons_that_differ_each_time_are_bounded(log):
    """However many reasons there are, a peer has so many lines in a while; the next one says how many are missing."""
    reports = LinkReports("n1")
    for number in range(1000):
        lose(reports, number / 1000, reason=f"reason {number}")
        reports.opened("n2", "control", 2, number / 1000)
        reports.left("n2", "control", "the peer closed the link", number / 1000)
    assert len(log) == LINES_MAX
    lose(reports, 1 + LINES_SECONDS, reason="another")
    assert log[-1]["reason"] == "another"
    assert log[-1]["unsaid"] == 3000 - LINES_MAX


def test_a_peer_that_comes_in_time_is_no_warning(log):
    """The first start of a cluster: nobody is there at first, and then both links open."""
    reports = LinkReports("n1")
    lose(reports, 0.0)
    reports.look("n2", up=False, now=PATIENCE_SECONDS - 1)
    reports.opened("n2", "control", 2, PATIENCE_SECONDS - 0.5)
    for second in range(60):
        reports.look("n2", up=True, now=PATIENCE_SECONDS + second)
    assert set(levels(log)) == {"info"}


def test_what_lasts_becomes_one_warning_with_the_last_reason(log):
    """A reason that was told as info is told again as a warning, even when the lines are used up."""
    reports = LinkReports("n1")
    for number in range(LINES_MAX + 5):
        lose(reports, 0.0, reason=f"reason {number}")
    for second in range(30):
        reports.look("n2", up=False, now=float(second))
    warnings = [line for line in log if line["log_level"] == "warning"]
    assert [line["reason"] for line in warnings] == [f"reason {LINES_MAX + 4}"]


def test_links_that_come_and_go_become_a_warning(log):
    """A moment with both links does not make a peer steady."""
    reports = LinkReports("n1")
    for second in range(30):
        lose(reports, float(second), reason="the peer closed the link", was_up=True)
        reports.look("n2", up=second % 2 == 0, now=float(second))
    assert levels(log).count("warning") == 1


def test_a_refusal_is_a_warning_at_once(log):
    """Another cluster, secret or release does not pass by itself."""
    lose(LinkReports("n1"), 0.0, reason="cluster id is a at n1 and b at n2", grave=True)
    assert levels(log) == ["warning"]


def test_a_peer_that_was_steady_is_news_again(log):
    """The next loss, for the same reason, is told; and again as info first."""
    reports = LinkReports("n1")
    lose(reports, 0.0)
    reports.look("n2", up=False, now=PATIENCE_SECONDS)
    reports.look("n2", up=True, now=PATIENCE_SECONDS + 1)
    reports.look("n2", up=True, now=PATIENCE_SECONDS + 1 + STEADY_SECONDS)
    lose(reports, PATIENCE_SECONDS + 2 + STEADY_SECONDS)
    assert levels(log) == ["info", "warning", "info"]


def test_a_host_that_knocks_for_ever_is_told_once(log):
    """Ports differ at each dial; the host and the reason count."""
    reports = LinkReports("n1")
    for number in range(1000):
        reports.turned_away(f"10.0.0.9:{number}", "the shared secret differs", number / 10, grave=True)
    assert [(line["event"], line["log_level"]) for line in log] == [("connection_refused", "warning")]


def test_a_host_with_ever_new_reasons_is_bounded(log):
    """A stranger chooses the words of its hello, and with them the reason."""
    reports = LinkReports("n1")
    for number in range(1000):
        reports.turned_away("10.0.0.9:1", f"this is node 'n1', not {number}", 0.0, grave=True)
    assert len(log) == LINES_MAX


def test_hosts_do_not_cost_memory(log):
    """Only the last hosts are remembered."""
    reports = LinkReports("n1")
    for number in range(3 * HOSTS_MAX):
        reports.turned_away(f"host{number}:1", "too long", 0.0, grave=True)
    assert len(reports._hosts) == HOSTS_MAX


def test_a_connection_that_broke_off_is_no_warning(log):
    """A port scan, or a peer that closes because it has learnt something, is no refusal."""
    LinkReports("n1").turned_away("10.0.0.9:1", "the peer closed the link", 0.0, grave=False)
    assert [(line["event"], line["log_level"]) for line in log] == [("handshake_broken", "info")]


def test_who_was_refused_of_late_is_known(log):
    """The status page tells of a node that still dials, and of no broken connection."""
    reports = LinkReports("n1")
    reports.turned_away("10.0.0.8:1", "the peer closed the link", 0.0, grave=False)
    for second in range(30):
        reports.turned_away("10.0.0.9:1", "another cluster", float(second), grave=True, refused="another cluster")
    assert reports.refused(30.0) == {"10.0.0.9": "another cluster"}
    assert reports.refused(29.0 + RECENT_SECONDS) == {}
