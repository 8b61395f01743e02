"""Mutation -> the rules that must notice it: names of what ``lab/checks`` and the replica's own invariants check.

Nothing else counts: neither another rule, nor an exception that the missing one happens to end in. A mutation that is
noticed by something else shows a hole in a check, in its script, or in itself.
"""

from __future__ import annotations

ONE_BATCH = (
    "repair-counted-at-round-0",
    "slot-promise-ignored",
    "late-proposal-accepted",
    "repairs-not-listed",
    "chosen-vouches-for-all",
    "majority-ignored",
    "majority-off-by-one",
    "uncommitted-served",
    "watermark-vouches-for-all",
    "durable-limit-ignored",
    "prepare-before-promise",
    "promise-forgotten",
    "promise-omits-unflushed",
    "promise-omits-decided",
    "first-page-is-all",
    "lowest-ballot-wins",
    "accept-below-promise",
    "empty-disk-votes",
    "rolled-back-disk-stays",
    "two-empty-nodes-form",
    "acknowledge-before-flush",
    "send-before-durable",
)
"""Two values are committed in one slot."""

LINEARIZABLE = (
    "repair-without-majority",
    "repair-takes-noop",
    "repair-ignores-view",
    "ticket-view-ignored",
    "ticket-majority-ignored",
    "joiners-not-in-tickets",
    "sequencer-reads-its-prefix",
    "promise-ends-at-hole",
    "view-ignored",
    "accepted-is-applied",
    "request-ids-forgotten",
    "sent-is-definite",
    "office-reads-at-once",
    "grants-not-waited-out",
    "loyalty-forgotten",
    "loyalty-lost-at-restart",
    "own-office-forgotten",
    "authority-from-receipt",
    "lease-from-receipt",
    "grant-beyond-authority",
    "old-clock-sample",
    "joiner-granted-early",
    "joiner-not-waited-for",
    "read-ignores-accepted",
    "confirmed-by-old-round",
    "replaced-in-the-view",
    "released-before-all-returned",
)
"""A read shows what was overwritten before it began, or a write takes effect again."""

HELD = (
    "grant-of-another-boot",
    "rates-ignored",
    "returned-lease-still-read",
    "stale-return-ends-lease",
    "return-of-another-boot",
    "holder-dropped-early",
    "late-answer-ends-lease",
)
"""A member that was taken out of the view still has a lease: what is read there may be overwritten already."""

NOTICED_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(ONE_BATCH, ("one batch",)),
    **dict.fromkeys(LINEARIZABLE, ("linearizable",)),
    # A member holds committed slots above all that the coordinator has assigned, and stops.
    "prefix-not-fetched": ("halt",),
    "old-promises-count": ("halt",),
    "old-disk-counts": ("halt",),
    # Two values at one ballot: whoever accepts both stops.
    "ticket-used-twice": ("one value",),
    "ticket-of-another-process": ("one value",),
    "two-proposers": ("one value",),
    # Two coordinators in one epoch: whoever hears of both stops; or they give one slot two values at one ballot.
    "epoch-not-unique": ("one coordinator", "one value", "one batch"),
    "promise-keeps-role": ("own promise",),
    "peers-of-before": ("peers",),
    "apply-out-of-order": ("applied in order",),
    # What must go on stands still.
    "holes-stay": ("request", "converge"),
    "spares-add-up": ("spare segments",),
    "full-left-by-event": ("full",),
    "nobody-suspected": ("converge",),
    "suspected-at-once": ("converge",),
    "heard-for-all": ("converge",),
    "any-sign-counts": ("converge",),
    "deaf-coordinator-stays": ("write",),
    "stalled-coordinator-stays": ("write",),
    "stuck-disk-keeps-lease": ("write",),
    "silent-holder-stays": ("write",),
    "unsafe-changes-made": ("write",),
    "promoted-while-behind": ("write",),
    "rejection-ignored": ("rejoin",),
    "loyal-to-the-past": ("election",),
    "read-waits-for-dead-epoch": ("read",),
    "leases-waited-out": ("speed",),
    "probation-not-kept": ("speed",),
    "patience-fixed": ("speed",),
    "slow-coordinator-stays": ("speed",),
    "slow-member-stays": ("speed",),
    # A drained node has what others can have, or is sent what is not its own clients'.
    **dict.fromkeys(
        ("drained-keeps-lease", "drained-stands", "drained-keeps-office", "drain-forgotten", "drained-handed-to"),
        ("drained",),
    ),
    # What clients were told is not so.
    "bookmark-ignored-after-failover": ("bookmark",),
    "answered-before-applied": ("acknowledged",),
    "early-answer-beyond-window": ("acknowledged",),
    # The state machine's own rules.
    "highest-number-only": ("same results",),
    "expired-is-applied": ("same results",),
    "ids-forgotten-early": ("same results",),
    "request-ids-not-in-checkpoint": ("equal digests",),
    "checkpoint-of-one": ("equal digests",),
    "lacking-checkpoint-kept": ("converge",),
    "divergence-unnoticed": ("equal stores",),
    # A disk of another past is taken for one of this group's.
    "compared-too-early": ("in order", "past state", "one batch", "same results", "equal digests"),
    "uncompared-serves": ("past state", "linearizable", "acknowledged"),
    # Two clusters of one name: a message passes between them, or a node that mixes their data stops.
    "ids-not-compared-at-the-door": ("apart",),
    "foreign-configuration-believed": ("halt",),
    "refuted-configuration-learnt": ("converge",),
    "begun-disk-believes-anyone": ("in order",),
    "id-not-kept-in-the-directory": ("converge",),
    # A node has open, or deleted, what the catalog does not say.
    "replaced-catalog-believed": ("deletion", "one batch", "converge"),
    "drop-logged-first": ("recovery", "converge"),
    **dict.fromkeys(HELD, ("lease in view",)),
    # A request that a living process took is never answered.
    "closed-group-waits": ("answered",),
    "old-catalog-believed": ("deletion", "one batch", "converge"),
    "idle-group-admits-nobody": ("converge",),
    # What a restart finds.
    "live-records-lost": ("recovery",),
    "store-before-record": ("recovery",),
    "store-believed": ("one batch", "in order", "equal digests", "recovery"),
    "acceptances-lost": ("recovery",),
    "damage-taken-as-torn": ("rot is noticed",),
}
