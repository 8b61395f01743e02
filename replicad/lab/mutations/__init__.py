"""Rules switched off one at a time: the proof that the simulator can fail.

Each file holds the mutations of some rules of section 9 of the design; ``registry`` says what a mutation is, ``scripts``
holds the little dramas that show those which random faults meet too rarely, ``recorded`` where each was noticed.
"""

from replicad.lab.mutations import commit, election, leases, membership, slips, tables
from replicad.lab.mutations.registry import MUTATIONS, Mutation, mutated, register

__all__ = [
    "MUTATIONS",
    "Mutation",
    "commit",
    "election",
    "leases",
    "membership",
    "mutated",
    "register",
    "slips",
    "tables",
]
