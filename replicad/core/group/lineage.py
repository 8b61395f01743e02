"""Whom to believe: whether what a peer holds has the same past as what is held here. Rules M4, M6.

A group has one line of configurations, each made by a majority of the one before. A directory that is no part of it
may be of another cluster, of another life of the group, of a past that was given up when a majority was lost, or a copy
that lived on elsewhere. One question decides all that follows: what *kin* is the peer, judged by the configuration that
it tells of (``K``: the one known here)?

=========  =======================================================  ================================================
Kin        the peer's configuration                                 what follows
=========  =======================================================  ================================================
untold     none: it is empty, or has slots only                     welcomed; no source
foreign    has other ids than ``K`` or this directory; or only one  refused: nothing is learnt or fetched, no vote
           of the two has ids, and nothing ties them together       (``RefusalCode.FOREIGN``)
given up   of a generation before ``K``'s                           told of ``K``; no source, no welcome
older      of a version before ``K``'s                              told of ``K``, welcomed
level      of ``K``'s version                                       believed
newer      of a later version; any, if there is no ``K``            learnt, unless it gives this disk a vote: that is
                                                                    taken from the log
successor  of a later generation, without a vote for this disk      what is held here was given up: it is forgotten,
                                                                    and the disk gets a new id
=========  =======================================================  ================================================

A coordinator vouches for the slots that are fetched from it. Without one they come from a peer only if one of the two
disks has *admitted* the other: ``K`` names this node, and gives the peer's very disk a vote; or the peer is newer, and
gives both disks a vote. Disk ids are random, so no configuration of another past holds one of this past; but a
directory of another past may have *learnt* one of this past, in which only its own disk is missing. All others wait for
a coordinator: as no known configuration gives this disk a vote, one can be elected without it.

==================  =======================================  =======================================================
this disk           a peer that has committed more           without a coordinator
==================  =======================================  =======================================================
no ``K``            has not admitted this disk               wait, with slots or without any: they may be of two
                                                             pasts
no ``K``            has admitted this disk                   fetch, unless a later configuration leaves the node out
``K`` names it      its disk has a vote in ``K``             fetch
``K`` names it      another disk, newer                      fetch if it has admitted this disk, else wait
left out by ``K``   newer                                    fetch if it has admitted this disk, else wait
==================  =======================================  =======================================================

``core/engine/belonging.py`` keeps which cluster a whole directory is of; ``core/model/cluster_id.py`` is what
handshakes compare. Both come first: who is refused at the door is not judged here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from replicad.core.model.configuration import GENERATION_STRIDE

if TYPE_CHECKING:
    from replicad.core.model.configuration import Configuration


class Kin(StrEnum):
    """How the past of a configuration that was heard, or found in the log, stands to what is known here."""

    UNTOLD = "untold"
    FOREIGN = "foreign"
    GIVEN_UP = "given up"
    OLDER = "older"
    LEVEL = "level"
    NEWER = "newer"
    SUCCESSOR = "successor"


class Lineage(NamedTuple):
    """What this disk knows of its own past at one moment; ``cluster``: "" as long as its id is not known."""

    node: str
    disk: str
    cluster: str
    known: Configuration | None

    def kin(self, heard: Configuration | None) -> Kin:
        """Judge a configuration of the own log, of a checkpoint, or of the founder who forms the group."""
        known = self.known
        if heard is None:
            return Kin.UNTOLD
        if self._contradicts(heard):
            return Kin.FOREIGN
        if known is None:
            return Kin.NEWER
        if heard.generation > known.generation and not heard.holds(self.node, self.disk):
            return Kin.SUCCESSOR
        if heard.generation < known.generation:
            return Kin.GIVEN_UP
        if heard.version == known.version:
            return Kin.LEVEL
        return Kin.NEWER if heard.version > known.version else Kin.OLDER

    def kin_of_peer(self, told: Configuration | None, sender: str, disk: str) -> Kin:
        """Judge the configuration that a peer with this disk tells of; ids that nothing bears out are not believed."""
        if told is not None and self._unproven(told, sender, disk):
            return Kin.FOREIGN
        return self.kin(told)

    def admitted(self, told: Configuration | None, sender: str, disk: str) -> bool:
        """Return whether slots may be fetched from this peer although no coordinator vouches for it."""
        known = self.known
        kin = self.kin_of_peer(told, sender, disk)
        if kin in {Kin.FOREIGN, Kin.GIVEN_UP, Kin.SUCCESSOR}:
            return False
        if known is not None and known.names(self.node) and known.holds(sender, disk):
            return True
        return kin is Kin.NEWER and told is not None and told.holds(self.node, self.disk) and told.holds(sender, disk)

    def of_this_generation(self, version: int) -> bool:
        """Return whether a configuration of this version is of the generation that is known here."""
        return self.known is not None and version // GENERATION_STRIDE == self.known.generation

    def _contradicts(self, heard: Configuration) -> bool:
        """Return whether a configuration cannot be one of this group in this life.

        One without ids may be from before they were made; then it is older than the one that holds them.
        """
        known = self.known
        if heard.cluster:
            if self.cluster and heard.cluster != self.cluster:
                return True
            return known is not None and known.incarnation not in {"", heard.incarnation}
        return known is not None and bool(known.cluster) and heard.version >= known.version

    def _unproven(self, told: Configuration, sender: str, disk: str) -> bool:
        """Return whether nothing ties a configuration that a peer tells of to this group."""
        known = self.known
        if known is None or told.cluster == known.cluster:
            return False
        if told.cluster:
            # Nothing here says which cluster this is; what names this very disk is of the same one.
            return not self.cluster and not told.holds(self.node, self.disk)
        return bool(self.cluster) and told.version > known.version and not known.holds(sender, disk)
