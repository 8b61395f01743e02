from random import Random

import pytest

from replicad.lab.network import Network, NetworkFaults


def make(seed=1, **faults):
    return Network(NetworkFaults(**faults), Random(seed), Random(f"{seed}/late"))


def test_a_healthy_network_delivers_once_within_its_delays():
    """Without faults every message arrives exactly once, within the delays that were set."""
    network = make(delay_min_us=100, delay_max_us=200)
    for _ in range(200):
        (time,) = network.arrivals("a", "b", 1_000)
        assert 1_100 <= time <= 1_200


def test_a_block_works_one_way_and_counts():
    """Blocking is one-way, and two blocks need two unblocks."""
    network = make()
    network.block("a", "b")
    network.block("a", "b")
    assert network.arrivals("a", "b", 0) == ()
    assert network.arrivals("b", "a", 0)
    network.unblock("a", "b")
    assert network.blocked("a", "b")
    network.unblock("a", "b")
    assert network.arrivals("a", "b", 0)
    with pytest.raises(ValueError, match="not blocked"):
        network.unblock("a", "b")


def test_loss_and_duplication_happen_about_as_often_as_asked():
    """The shares of lost and duplicated messages are near what was set."""
    network = make(loss_ppm=200_000, duplicate_ppm=100_000)
    counts = [len(network.arrivals("a", "b", 0)) for _ in range(5_000)]
    assert 800 < counts.count(0) < 1_200
    assert 300 < counts.count(2) < 500


@pytest.mark.parametrize("ordered", [True, False])
def test_only_an_unordered_network_lets_messages_overtake(ordered):
    """Messages overtake each other exactly if the network is not ordered."""
    network = make(delay_min_us=10, delay_max_us=1_000, ordered=ordered)
    times = [network.arrivals("a", "b", now)[0] for now in range(0, 10_000, 10)]
    assert (times == sorted(times)) == ordered


def test_healing_ends_blocks_and_faults():
    """After healing nothing is blocked, lost or doubled."""
    network = make(loss_ppm=900_000, duplicate_ppm=900_000)
    network.block("a", "b")
    network.heal()
    assert all(len(network.arrivals("a", "b", 0)) == 1 for _ in range(100))


@pytest.mark.parametrize(
    "faults", [{"delay_min_us": 0}, {"delay_min_us": 9, "delay_max_us": 8}, {"loss_ppm": 1_000_000}]
)
def test_senseless_settings_are_refused(faults):
    """Settings outside their range are refused when they are made."""
    with pytest.raises(ValueError, match="must be"):
        NetworkFaults(**faults)
