"""Scripts about the log, the window and the configuration: each comes to the one moment at which its rule matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.model.operations import ACK_MAJORITY, NO_CAS, PUT
from replicad.lab.clients import Request
from replicad.lab.mutations.drama import Drama
from replicad.lab.mutations.registry import scripted

if TYPE_CHECKING:
    from replicad.lab.contact import Outcome


@scripted("lowest-ballot-wins")
def lowest_ballot_wins() -> None:
    """Two voters report two values for one slot; only the later one can have been committed."""
    drama = Drama()
    first, second, third = drama.order
    drama.write(first)
    drama.dropped |= {("Accept", first, second), ("Accept", first, third)}
    drama.begin(first)
    drama.run_for(10_000)
    drama.crash(first)
    drama.dropped |= {("PreVote", third, "*"), ("Committed", second, third)}
    drama.until(lambda: drama.leads(second), "elect the second")
    outcomes = drama.begin(second)
    drama.run_for(1_500)
    drama.dropped |= {("Heartbeat", second, third)}
    drama.until(lambda: bool(outcomes), "commit")
    drama.crash(second)
    drama.restart(first)
    drama.until(lambda: drama.leads(first), "elect the first")
    drama.run_for(100_000)
    drama.end()


# --- D2 ---------------------------------------------------------------------------------------------------------------


@scripted("expired-is-applied")
def expired_is_applied() -> None:
    """A contact's operation reaches the coordinator after its window has passed."""
    drama = Drama(request_window_slots=4)
    first, contact, _ = drama.order
    drama.write(first)
    drama.holding |= {("Forward", contact, first)}
    drama.begin(contact)
    drama.until(lambda: bool(drama.held), "forward the operation")
    for _ in range(6):
        drama.write(first)
    drama.release()
    drama.run_for(50_000)
    drama.end()


@scripted("early-answer-beyond-window")
def early_answer_beyond_window() -> None:
    """The same, with ack=majority, through a contact that applies slowly and so does not know it yet."""
    drama = Drama(request_window_slots=4)
    first, contact, _ = drama.order
    drama.write(first)
    drama.node(contact).apply_us = 500_000
    drama.holding |= {("Forward", contact, first)}
    drama.begin(contact, ACK_MAJORITY)
    drama.until(lambda: bool(drama.held), "forward the operation")
    for _ in range(6):
        drama.write(first)
    drama.release()
    drama.run_for(50_000)
    drama.node(contact).apply_us = 0
    drama.end()


@scripted("ids-forgotten-early")
def ids_forgotten_early() -> None:
    """A client repeats a write with its idempotency key well within the window."""
    drama = Drama(request_window_slots=8)
    first = drama.order[0]
    outcomes: list[Outcome] = []
    for _ in range(2):
        drama.request_write(first, Request("c", b"other", PUT, b"once"), NO_CAS, b"idempotency key.", outcomes.append)
        for _ in range(5):
            drama.write(first)
    drama.end()


# --- M2, M4 -----------------------------------------------------------------------------------------------------------


@scripted("old-promises-count", "old-disk-counts")
def old_promises_count() -> None:
    """A candidate holds the promise of a disk that is replaced while it waits for one more."""
    drama = Drama(5, lease_us=1_000_000, stall_after_us=400_000)
    first, second, swings, candidate, wiped = drama.order
    drama.write(first)
    drama.part(candidate, wiped)
    drama.until(lambda: len(drama.replica(first).view) == 3, "go on as three")
    drama.dropped |= {("*", first, swings), ("*", swings, first)}
    drama.dropped |= {(name, sender, "*") for name in ("PreVote",) for sender in (second, swings, wiped)}
    drama.until(lambda: not drama.leads(first) and drama.loyal_for(second) <= 50_000, "let time pass")
    drama.dropped -= {("*", candidate, swings), ("*", swings, candidate)}
    drama.dropped |= {("Prepare", candidate, swings)}
    drama.eager(candidate)
    election = drama.replica(candidate).election
    drama.until(lambda: wiped in election.reports, "promise", 200_000)
    # The office goes on: a third member, and soon the wiped one's new disk.
    drama.crash(wiped)
    drama.nodes[wiped].wipe()
    drama.dropped |= {("*", candidate, wiped), ("*", wiped, candidate)}
    for name in (first, second, swings):
        drama.dropped -= {("*", name, wiped), ("*", wiped, name)}
    drama.dropped -= {("*", first, swings), ("*", swings, first)}
    drama.until(lambda: drama.loyal_for(second) <= 0, "let time pass")
    drama.eager(first)
    drama.until(lambda: drama.leads(first), "elect the first again", 500_000)
    drama.restart(wiped)
    drama.until(lambda: drama.replica(wiped).role == "follower", "re-admit the disk", 900_000)
    drama.run_for(5_000)
    drama.dropped |= {("*", first, swings), ("*", swings, first), ("*", second, swings), ("*", swings, second)}
    drama.until(lambda: drama.loyal_for(swings) <= 0, "let time pass")
    drama.write(first)
    drama.dropped -= {("Prepare", candidate, swings), ("*", candidate, wiped), ("*", wiped, candidate)}
    drama.run_for(70_000)
    drama.begin(candidate)
    drama.run_for(200_000)
    drama.end()


# --- K2 ---------------------------------------------------------------------------------------------------------------


@scripted("lacking-checkpoint-kept")
def lacking_checkpoint_kept() -> None:
    """The file of a follower's checkpoint is gone, and its store is whole: nothing tells until its machine restarts."""
    drama = Drama()
    first, second, _ = drama.order
    drama.write(first)
    process = drama.nodes[first].process
    if process is not None:
        process.step(process.replica.request_checkpoint)
    node = drama.nodes[second]
    drama.until(lambda: bool(node.files.slots()) and node.recorded_checkpoint() > 0, "take a checkpoint")
    drama.crash(second)
    node.files.wipe()
    drama.restart(second)
    drama.until(lambda: not node.fetches_again, "take a checkpoint for who lacks it", rule="converge")
    drama.end()


# --- C2 ---------------------------------------------------------------------------------------------------------------


@scripted("uncommitted-served")
def uncommitted_served() -> None:
    """A member catches up from a coordinator that has just put one more slot into its own log, and dies."""
    drama = Drama()
    first, second, third = drama.order
    drama.dropped |= {("*", first, third), ("*", third, first)}
    drama.until(lambda: third not in drama.replica(first).view, "drop it from the view")
    drama.write(first)
    before = drama.node(first).disk.segments()
    drama.hang(first, 5_000_000)
    drama.dropped |= {("Accept", first, second), ("Accept", first, third)}
    drama.begin(first)
    drama.dropped -= {("*", first, third), ("*", third, first)}
    drama.run_for(200_000)
    drama.crash(first, power=True)
    drama.roll_back(first, before)
    drama.join()
    drama.part(third)
    drama.restart(first)
    drama.write(second)
    drama.end()
