"""Identifiers and the small integers that order everything else.

An *epoch* is one office of one coordinator. Design rule E1 wants epochs to be unique per (counter, disk), so an epoch
is one integer, ``counter * EPOCH_STRIDE + number``, where ``number`` is the number that the group's configuration gave
to the coordinator's disk id. A re-admitted disk gets a fresh number, so it can never meet an epoch of its predecessor.
"""

from __future__ import annotations

EPOCH_STRIDE = 1_000_000
"""Numbers of disks that one group can admit in its life before epochs would collide."""

Epoch = int


def make_epoch(counter: int, number: int) -> Epoch:
    """Return the epoch of ``counter`` for the disk with this configuration ``number``."""
    if not 0 < number < EPOCH_STRIDE:
        raise ValueError(f"disk number {number} is not between 1 and {EPOCH_STRIDE - 1}")
    return counter * EPOCH_STRIDE + number


def next_epoch(above: Epoch, number: int) -> Epoch:
    """Return the lowest epoch of this disk that is higher than ``above``."""
    return make_epoch(above // EPOCH_STRIDE + 1, number)


def epoch_counter(epoch: Epoch) -> int:
    """Return the counter part of an epoch."""
    return epoch // EPOCH_STRIDE


def epoch_number(epoch: Epoch) -> int:
    """Return the configuration number of the disk that owns this epoch."""
    return epoch % EPOCH_STRIDE
