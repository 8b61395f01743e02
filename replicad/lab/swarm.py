"""What one seed tries: a random mix of faults, protocol constants and load.

Every seed draws a *different* mix, and most mixes leave some faults out: a fault that is always on hides the bugs that
only show without it. All draws here come from streams of their own, named after the seed, in a fixed order; a new
fault takes a new stream, so that recorded seeds keep their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from replicad.core.model.limits import Limits
from replicad.core.model.operations import ACTIVE, REMOTE_WRITE
from replicad.lab.network import NetworkFaults

CATALOG_SHARE = 0.35
"""Share of the seeds in which nodes follow the catalog in ``_meta``, and groups come and go."""
LOSSES_SHARE = 0.5
"""Share of those in which disks are lost and put back, too, and strangers come by."""
CATALOG_US = (300_000, 800_000, 2_000_000)


@dataclass(frozen=True, slots=True)
class NemesisFaults:
    """Mean times between faults of each kind, in microseconds of virtual time (0: never)."""

    crash_us: int = 0
    power_us: int = 0
    """The machine goes down, not only the process: what was not flushed is lost or torn, its clock starts anew."""
    blackout_us: int = 0
    """All machines lose power at once."""
    pause_us: int = 0
    partition_us: int = 0
    one_way_us: int = 0
    hang_us: int = 0
    full_us: int = 0
    rot_us: int = 0
    wipe_us: int = 0
    storm_us: int = 0
    """Several of the faults above that this seed has, within a tenth of a second."""
    hand_over_us: int = 0
    stranger_us: int = 0
    """A node of an earlier cluster of the same name runs at the address of one of this one's (M6)."""
    stop_us: int = 0
    """An orderly stop (SIGTERM): the process ends as soon as it may, and starts again."""
    slow_us: int = 0
    """A disk whose flushes take tenths of seconds longer, for seconds."""
    diverge_us: int = 0
    """One machine's state gets something that the others do not have (a minority's, at any time)."""
    drain_us: int = 0
    """Not a fault: somebody drains a node, or ends that."""
    drained_for_good_ppm: int = 0
    """Chance that what is drained stays so when everything heals."""
    diverge_meta_us: int = 0
    """The same, of one machine's copy of the catalog."""
    isolate_us: int = 0
    """The coordinator is cut off, for a little longer than its office can last."""
    flap_us: int = 0
    """A disk is full for hundredths of seconds."""
    older_us: int = 0
    """A node gets an older copy of its whole directory."""
    other_past_us: int = 0
    """A node gets a directory of another run of a cluster with the same names, or of a branch of this one."""
    checkpoint_us: int = 0
    """Not a fault: somebody asks for a checkpoint."""
    switch_us: int = 0
    """Not a fault: somebody asks for a protocol."""
    change_us: int = 0
    """Not a fault: somebody asks for a change of the members."""
    vote_us: int = 0
    """Not a fault: somebody asks for a mirror's vote to be given, or a voter's to be taken."""
    catalog_us: int = 0
    """Not a fault: somebody creates, drops or changes a group of the catalog."""
    aimed_ppm: int = 0
    """Chance that a change of the configuration, or a page of slots that is held back, comes with a crash just then."""
    points_ppm: int = 0
    """Scale of the chances with which processes die between two things made durable apart (``crash_points``)."""
    installs_ppm: int = 0
    """The same for the end of an install of a checkpoint, if that is more."""
    long_ppm: int = 200_000
    """Share of outages (in parts per million) that last for seconds instead of tenths of seconds."""


@dataclass(frozen=True, slots=True)
class DiskFaults:
    """Speed and size of the disks. Times in microseconds."""

    flush_min_us: int = 100
    flush_max_us: int = 400
    segment_bytes: int = 16 * 1024
    reserve_bytes: int = 1024
    """Space in the current segment that only promises may use once the disk is full."""
    store_write_ppm: int = 1_000_000
    """Share of the store's commits (in parts per million) after which its layer is written to its databases."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients do."""

    clients: int = 4
    keys: int = 5
    think_us: int = 60_000
    """Mean pause of a client between two requests."""
    burst_ppm: int = 150_000
    """Share of rounds in which a client sends a burst of independent writes at once."""
    burst_max: int = 8
    deadline_us: int = 700_000
    """A contact gives up a request after this long; the client then tries another node."""
    attempts_max: int = 4
    weak_ppm: int = 150_000
    """Share of writes that ask for ``ack`` majority or one only."""
    value_bytes_max: int = 60
    lost_reply_ppm: int = 0
    """Share of answers that never reach the client."""
    session_ppm: int = 0
    """Share of the moving clients' reads that carry a bookmark (0: there are no such clients)."""


@dataclass(frozen=True, slots=True)
class Swarm:
    """Everything that one seed settles before the run begins."""

    nodes: int
    size: int
    """The number of nodes that this mix was drawn for (``--nodes``)."""
    founders: int
    """So many of the nodes form the group; the others may be added to it."""
    limits: Limits
    network: NetworkFaults
    nemesis: NemesisFaults
    disk: DiskFaults
    load: Load
    fault_phase_us: int
    clock_ppm: int
    """Clock rates are drawn from 1 ± this many parts per million; twice this is below the rate bound."""
    apply_delay_us: int
    """Upper bound of the executor's delay before each run of slots."""
    apply_budget: int
    """Operations that the executor applies in one run."""
    protocol: str = REMOTE_WRITE
    catalog: bool = False
    """Nodes follow the catalog in ``_meta``; otherwise each has the group ``default`` open, and no other."""


def draw(seed: int, nodes: int) -> Swarm:
    """Return the mix of this seed for a group of so many nodes; where members change, there are two nodes more."""
    return themed(seed, _mix(seed, nodes))


def _mix(seed: int, nodes: int) -> Swarm:
    limits = _limits(Random(f"{seed}/limits"))
    limits = _ticket_limits(limits, Random(f"{seed}/limits/tickets"))
    short = _short(Random(f"{seed}/limits/short"))
    limits = replace(limits, **short.get("limits", {}))
    random = Random(f"{seed}/swarm")
    nemesis = replace(
        _nemesis(Random(f"{seed}/swarm/nemesis")),
        diverge_us=_diverge_us(seed),
        **_changes(seed),
        **_leases(seed),
        **_drains(seed),
    )
    late_pages_ppm, aimed_ppm, vote_us = _late_pages(seed) if nemesis.change_us else (0, 0, 0)
    nemesis = replace(nemesis, aimed_ppm=aimed_ppm, vote_us=vote_us)
    if not nemesis.change_us and _strangers_us(seed):
        # An empty directory between two clusters of one name joins the one that it meets first: that is no fault of it.
        nemesis = replace(nemesis, wipe_us=0, stranger_us=_strangers_us(seed))
    if not nemesis.stranger_us:
        nemesis = replace(nemesis, **_put_back(seed))
    nemesis = replace(nemesis, **short.get("nemesis", {}))
    if nemesis.older_us or nemesis.other_past_us:
        nemesis = replace(nemesis, drain_us=0)  # who puts a directory back waits until every other node has a lease
    nemesis = replace(nemesis, points_ppm=1_000_000 if Random(f"{seed}/swarm/points").random() < 0.5 else 0)
    founders = nodes
    catalog = Random(f"{seed}/swarm/catalog").random() < CATALOG_SHARE
    if catalog:
        mean = Random(f"{seed}/swarm/catalog/mean").choice(CATALOG_US)
        nemesis = replace(nemesis, catalog_us=mean)
        if Random(f"{seed}/swarm/catalog/losses").random() >= LOSSES_SHARE:
            nemesis = replace(nemesis, rot_us=0, wipe_us=0, older_us=0, stranger_us=0)
        nemesis = replace(nemesis, diverge_meta_us=_diverge_meta_us(seed))
    if nemesis.change_us:
        nemesis = replace(nemesis, rot_us=0, wipe_us=0, diverge_us=0, older_us=0, other_past_us=0)
        founders = nodes + 2 if catalog else Random(f"{seed}/swarm/founders").choice((1, nodes, nodes))
    return Swarm(
        nodes=nodes + 2 if nemesis.change_us else nodes,
        size=nodes,
        founders=founders,
        limits=limits,
        network=replace(_network(Random(f"{seed}/swarm/network")), late_pages_ppm=late_pages_ppm),
        nemesis=nemesis,
        disk=replace(
            _disk(Random(f"{seed}/swarm/disk"), limits),
            store_write_ppm=Random(f"{seed}/swarm/store").choice((1_000_000, 250_000, 30_000, 0)),
        ),
        load=replace(_load(Random(f"{seed}/swarm/load")), session_ppm=_session_ppm(seed)),
        fault_phase_us=random.randrange(8_000_000, 14_000_000),
        clock_ppm=random.choice((0, limits.rate_bound_ppm // 4, limits.rate_bound_ppm // 2 - 1)),
        apply_delay_us=random.choice((50, 500, 5_000, 50_000)),
        apply_budget=random.choice((1, 4, 64, 1024)),
        protocol=Random(f"{seed}/swarm/protocol").choice((REMOTE_WRITE, ACTIVE)),
        catalog=catalog,
    )


def themed(seed: int, swarm: Swarm) -> Swarm:
    """In a few seeds, change a mix so that it comes again and again to a state that the others hardly ever meet."""
    random = Random(f"{seed}/swarm/theme")
    draw = random.random()
    theme = next((change for low, high, change in THEMES if low <= draw < high), None)
    return theme(swarm, random) if theme is not None else swarm


def _stale(swarm: Swarm, random: Random) -> Swarm:
    """Who was cut off has logged what was never chosen, is sent a checkpoint, and dies while it installs that."""
    swarm = _plain(swarm)
    nemesis = replace(
        swarm.nemesis,
        partition_us=0,
        one_way_us=0,
        isolate_us=random.randint(800_000, 1_600_000),
        points_ppm=500_000,
        installs_ppm=2_500_000,
        wipe_us=random.randint(800_000, 1_600_000),
    )
    limits = replace(
        swarm.limits,
        checkpoint_slots=random.choice((5, 10)),
        retained_slots=random.choice((1, 2)),
        retained_bytes=1_024,
        open_slots_max=256,
        open_bytes_max=1 << 20,
        batch_operations_max=1,
    )
    load = replace(swarm.load, clients=8, think_us=20_000, burst_ppm=500_000, burst_max=24, deadline_us=1_500_000)
    return replace(swarm, nemesis=nemesis, limits=limits, load=load)


def _pasts(swarm: Swarm, random: Random) -> Swarm:
    """Directories of another past come often, to a cluster that is in touch: digests must find them out."""
    swarm = _plain(swarm)
    nemesis = replace(
        swarm.nemesis,
        **dict.fromkeys(("partition_us", "one_way_us", "pause_us", "hang_us", "full_us", "blackout_us"), 0),
        **dict.fromkeys(("storm_us", "slow_us", "rot_us", "diverge_us"), 0),
        other_past_us=random.randint(400_000, 1_000_000),
        points_ppm=0,
    )
    if random.random() < 0.5:
        # A log that is applied slowly is contradicted in its middle, and has much above that.
        limits = replace(swarm.limits, digest_slots=1)
        load = replace(swarm.load, think_us=100_000, burst_ppm=0)
        swarm = replace(swarm, apply_delay_us=50_000, apply_budget=1, limits=limits, load=load)
    return replace(swarm, nemesis=nemesis)


def _flapping(swarm: Swarm, random: Random) -> Swarm:
    """Nodes want leases and want none, in messages that overtake each other."""
    swarm = _plain(swarm)
    nemesis = NemesisFaults(flap_us=random.randint(60_000, 200_000))
    network = replace(swarm.network, ordered=False, loss_ppm=0, slow_ppm=random.choice((0, 50_000)), slow_max_us=80_000)
    limits = replace(
        swarm.limits, lease_us=random.choice((600_000, 900_000)), heartbeat_us=100_000, stall_after_us=250_000
    )
    load = replace(swarm.load, clients=8, think_us=4_000, keys=1, burst_ppm=0, weak_ppm=0, deadline_us=700_000)
    return replace(swarm, nemesis=nemesis, network=network, limits=limits, load=load)


def _plain(swarm: Swarm) -> Swarm:
    """Leave out what a theme has no use for: the catalog, changes, and directories that are replaced."""
    changes = ("change_us", "switch_us", "vote_us", "catalog_us", "diverge_meta_us", "drain_us", "aimed_ppm")
    directories = ("stranger_us", "wipe_us", "older_us", "other_past_us")
    nemesis = replace(swarm.nemesis, **dict.fromkeys((*changes, *directories), 0))
    network = replace(swarm.network, late_pages_ppm=0)
    return replace(swarm, nodes=swarm.size, founders=swarm.size, catalog=False, nemesis=nemesis, network=network)


THEMES = ((0.0, 0.02, _stale), (0.04, 0.08, _pasts), (0.08, 0.12, _flapping))
"""Of a number from 0 to 1 that each seed draws: from where to where a theme counts."""


def _limits(random: Random) -> Limits:
    window = random.choice((200, 300, 600, 2_000))
    value_bytes_max = random.choice((128, 512, 4_096))
    lease_us = random.choice((200_000, 300_000, 400_000))
    return Limits(
        lease_us=lease_us,
        heartbeat_us=50_000,
        rate_bound_ppm=random.choice((10_000, 50_000, 100_000)),
        stagger_us=random.choice((20_000, 40_000)),
        stall_after_us=random.choice((150_000, 250_000)),
        value_bytes_max=value_bytes_max,
        batch_operations_max=random.choice((1, 3, 8, 64)),
        batch_bytes_max=value_bytes_max * random.choice((2, 4)) + 512,
        open_slots_max=random.choice((2, 4, 16, 64)),
        open_bytes_max=random.choice((4_096, 65_536)) + value_bytes_max * 4,
        request_window_slots=window,
        checkpoint_slots=random.choice((20, 40, 80, 200)),
        checkpoint_bytes=random.choice((8_192, 65_536, 1 << 20)),
        retained_slots=random.choice((1, 8, 32, 64)),
        retained_bytes=random.choice((1_024, 16_384, 1 << 20)),
        join_lag_slots=random.choice((1, 4, 16)),
        digest_slots=random.choice((1, 4, 16)),
        page_entries=random.choice((1, 4, 32)),
        page_bytes=random.choice((2_048, 16_384)) + value_bytes_max,
    )


def _ticket_limits(limits: Limits, random: Random) -> Limits:
    return replace(
        limits,
        tickets_max=random.choice((1, 2, 8)),
        repair_after_us=random.choice((10_000, 40_000, 150_000)),
        hand_on_bytes=random.choice((1, 60, 100_000, 100_000)),
    )


def _short(random: Random) -> dict[str, dict[str, int]]:
    """Return what is changed in a part of the seeds, so that most who were away need a transfer.

    There are checkpoints very often, and little of the log is kept. A coordinator that is cut off logs many slots that
    are never chosen, and finds them around the checkpoint that it is sent later.
    """
    short = random.random() < 0.4
    slots = random.choice((5, 10, 20))
    retained = random.choice((1, 2, 4))
    opened = random.choice((16, 32, 64))
    partition_us = random.randint(300_000, 1_500_000)
    if not short:
        return {}
    limits = {
        "checkpoint_slots": slots,
        "retained_slots": retained,
        "retained_bytes": 1_024,
        "open_slots_max": opened,
        "open_bytes_max": 1 << 20,
        "batch_operations_max": 1,
    }
    return {"limits": limits, "nemesis": {"partition_us": partition_us}}


def _maybe(random: Random, chance_ppm: int, low: int, high: int) -> int:
    """Return a number from ``low`` to ``high`` with this chance, else 0; always takes two draws."""
    on = random.randrange(1_000_000) < chance_ppm
    value = random.randint(low, high)
    return value if on else 0


def _network(random: Random) -> NetworkFaults:
    delay_min = random.choice((50, 100, 500, 2_000))
    return NetworkFaults(
        delay_min_us=delay_min,
        delay_max_us=delay_min * random.choice((2, 4, 20)),
        loss_ppm=_maybe(random, 500_000, 1_000, 80_000),
        duplicate_ppm=_maybe(random, 500_000, 1_000, 60_000),
        slow_ppm=_maybe(random, 500_000, 500, 20_000),
        slow_max_us=random.choice((20_000, 200_000, 2_000_000)),
        ordered=random.random() < 0.3,
    )


def _nemesis(random: Random) -> NemesisFaults:
    second = 1_000_000
    return NemesisFaults(
        crash_us=_maybe(random, 600_000, second // 2, 4 * second),
        power_us=_maybe(random, 500_000, second // 2, 4 * second),
        blackout_us=_maybe(random, 300_000, second, 6 * second),
        pause_us=_maybe(random, 600_000, second // 4, 3 * second),
        partition_us=_maybe(random, 600_000, second // 2, 4 * second),
        one_way_us=_maybe(random, 400_000, second // 2, 4 * second),
        hang_us=_maybe(random, 300_000, second // 2, 4 * second),
        full_us=_maybe(random, 250_000, second, 5 * second),
        rot_us=_maybe(random, 400_000, second, 4 * second),
        wipe_us=_maybe(random, 400_000, second, 4 * second),
        storm_us=_maybe(random, 500_000, second, 5 * second),
        hand_over_us=_maybe(random, 300_000, second, 5 * second),
        checkpoint_us=_maybe(random, 400_000, second // 2, 3 * second),
        long_ppm=random.choice((0, 100_000, 300_000)),
    )


def _changes(seed: int) -> dict[str, int]:
    random = Random(f"{seed}/swarm/changes")
    return {
        "switch_us": _maybe(random, 300_000, 500_000, 4_000_000),
        "change_us": _maybe(random, 300_000, 300_000, 2_000_000),
    }


def _leases(seed: int) -> dict[str, int]:
    random = Random(f"{seed}/swarm/leases")
    return {
        "stop_us": _maybe(random, 400_000, 500_000, 4_000_000),
        "slow_us": _maybe(random, 300_000, 1_000_000, 5_000_000),
    }


def _drains(seed: int) -> dict[str, int]:
    random = Random(f"{seed}/swarm/drains")
    return {"drain_us": _maybe(random, 200_000, 300_000, 3_000_000), "drained_for_good_ppm": 500_000}


def _diverge_us(seed: int) -> int:
    return _maybe(Random(f"{seed}/swarm/diverge"), 250_000, 1_000_000, 5_000_000)


def _diverge_meta_us(seed: int) -> int:
    return _maybe(Random(f"{seed}/swarm/diverge/meta"), 400_000, 500_000, 3_000_000)


def _late_pages(seed: int) -> tuple[int, int, int]:
    """Return ``(late_pages_ppm, aimed_ppm, vote_us)`` of a seed in which members change."""
    random = Random(f"{seed}/swarm/late")
    late = _maybe(random, 500_000, 100_000, 600_000)
    aimed = _maybe(random, 1_000_000, 300_000, 900_000)
    vote = _maybe(random, 1_000_000, 200_000, 1_000_000)
    return (late, aimed, vote) if late else (0, 0, 0)


def _strangers_us(seed: int) -> int:
    return _maybe(Random(f"{seed}/swarm/strangers"), 200_000, 500_000, 4_000_000)


def _put_back(seed: int) -> dict[str, int]:
    random = Random(f"{seed}/swarm/put back")
    return {
        "older_us": _maybe(random, 200_000, 1_500_000, 5_000_000),
        "other_past_us": _maybe(random, 200_000, 2_000_000, 6_000_000),
    }


def _session_ppm(seed: int) -> int:
    return _maybe(Random(f"{seed}/swarm/sessions"), 500_000, 500_000, 900_000)


def _disk(random: Random, limits: Limits) -> DiskFaults:
    flush_min = random.choice((50, 200, 1_000, 5_000, 20_000))
    record_max = 2 * limits.batch_bytes_max + 1_024
    return DiskFaults(
        flush_min_us=flush_min,
        flush_max_us=flush_min * random.choice((2, 4)),
        segment_bytes=max(random.choice((8, 16, 32)) * 1_024, 4_096 + 4 * record_max),
        reserve_bytes=random.choice((512, 1_024)),
    )


def _load(random: Random) -> Load:
    return Load(
        clients=random.choice((3, 5, 8)),
        keys=random.choice((1, 2, 5, 12)),
        think_us=random.choice((10_000, 30_000, 100_000)),
        burst_ppm=random.choice((0, 100_000, 300_000)),
        burst_max=random.choice((4, 12)),
        deadline_us=random.choice((300_000, 700_000, 1_500_000)),
        attempts_max=random.choice((1, 3, 6)),
        weak_ppm=random.choice((0, 100_000, 300_000)),
        value_bytes_max=random.choice((12, 60)),
        lost_reply_ppm=_maybe(random, 500_000, 10_000, 150_000),
    )
