"""Rules switched off one at a time: the proof that the simulator can fail.

Each file holds the mutations of some rules of section 9 of the design, or of what serves no rule alone (the failure
detectors, the usual slips). ``registry`` says what a mutation is; the ``scripts_`` files hold little dramas for those
that random faults meet too rarely; ``recorded`` says at which seed the others were noticed.
"""

from replicad.lab.mutations import (
    active,
    catalog,
    commit,
    detection,
    drains,
    election,
    leases,
    membership,
    scripts_active,
    scripts_drains,
    scripts_leases,
    scripts_log,
    scripts_members,
    scripts_offices,
    scripts_returns,
    slips,
    startup,
    tables,
)
from replicad.lab.mutations.registry import MUTATIONS, Mutation, mutated, register

RULES = (active, election, commit, leases, drains, detection, membership, tables, startup, catalog, slips)
DRAMAS = (
    scripts_active,
    scripts_offices,
    scripts_leases,
    scripts_log,
    scripts_members,
    scripts_returns,
    scripts_drains,
)

__all__ = ["DRAMAS", "MUTATIONS", "RULES", "Mutation", "mutated", "register"]
