"""Changes that somebody asks for: of the members, of the protocol, of who coordinates. Rules M1 to M4, P1.

The coordinator takes one at a time and refuses what would be unsafe: with a code (``core/model/refusals``), and a
sentence that says what to do instead. A change is done when its configuration entry is committed; the move of an
office, when the office is released.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.core.detection.patience import Patience
from replicad.core.model.change_kinds import ADD, DEMOTE, MOVE, PROMOTE, PROTOCOL, REMOVE
from replicad.core.model.configuration import PROTOCOLS, Configuration
from replicad.core.model.messages import ChangeAnswer, ChangeOutcome, ChangeRequest
from replicad.core.model.older_refusals import from_sentence
from replicad.core.model.refusals import Refusal, RefusalCode, from_wire

if TYPE_CHECKING:
    from replicad.core.group.membership import Membership
    from replicad.core.group.office import Office
    from replicad.core.group.state import GroupState

KINDS = (ADD, PROMOTE, DEMOTE, REMOVE, PROTOCOL, MOVE)
"""Kinds of change: the argument is a node's name, for PROTOCOL the protocol's."""

ARGUMENT_CHARACTERS_MAX = 255
VOTERS_MAX = 15
MIRRORS_MAX = 256
WAITING_MAX = 64
"""Requests for the change under way; answers that are remembered; requests of one node that are not answered."""
PATIENCE_LEASES = 400
"""A request that is not answered for so long is forgotten (two minutes)."""

Waiter = tuple[str, int, int]
"""``(node, boot, number)`` of one request."""


@dataclass(slots=True)
class Change:
    """The change under way in one office."""

    epoch: int
    kind: str
    argument: str
    waiting: list[Waiter] = field(default_factory=list)
    slot: int = 0
    """Slot of its entry once that is proposed."""


class ChangeDesk:
    """The coordinator's side."""

    def __init__(self, state: GroupState, membership: Membership, requests: ChangeRequests) -> None:
        self.state = state
        self.membership = membership
        self.requests = requests
        self.under_way: Change | None = None
        self.answered: dict[Waiter, Refusal | None] = {}
        """A request that comes twice is answered twice, and carried out once."""
        self.farewells: list[tuple[int, str]] = []
        """``(slot, node)``: who lost its vote or its place by the entry in that slot, and was not told yet."""
        self._seen: Configuration | None = None

    # --- taking requests --------------------------------------------------------------------------------------------

    def on_request(self, node: str, message: ChangeRequest, office: Office) -> None:
        """Begin the change, wait for the same one that is under way, or answer at once."""
        waiter = (node, message.boot, message.change)
        kind, argument = message.kind, message.argument
        change = self.current(office)
        if waiter in self.answered:
            self._answer(waiter, self.answered[waiter])
        elif change is not None and (change.kind, change.argument) == (kind, argument):
            if waiter not in change.waiting and len(change.waiting) < WAITING_MAX:
                change.waiting.append(waiter)
        else:
            refusal = self._nonsense(kind, argument)
            if refusal or self.holds_already(kind, argument):
                self._answer(waiter, refusal)
                return
            refusal = self._outdated(message.version) or self._busy(office) or self.unsafe(kind, argument, office)
            if refusal:
                self._answer(waiter, refusal)
                return
            self._begin(Change(office.epoch, kind, argument, [waiter]), office)

    def _outdated(self, version: int) -> Refusal | None:
        """Return why a request that was made under an older configuration is not carried out.

        It may be a copy that was long on its way, of one that another coordinator has dealt with.
        """
        if version == self._configuration().version:
            return None
        return Refusal(
            RefusalCode.OUTDATED,
            "the group's configuration has changed since this was asked for: look at it, and ask again",
        )

    def current(self, office: Office) -> Change | None:
        """Return the change under way in this office."""
        change = self.under_way
        return change if change is not None and change.epoch == office.epoch else None

    def _begin(self, change: Change, office: Office) -> None:
        self.under_way = change
        self.state.event("change_begins", kind=change.kind, argument=change.argument)
        if change.kind == MOVE:
            office.successor = change.argument
        elif change.kind in {DEMOTE, REMOVE}:
            office.view.barred = change.argument

    # --- refusing ---------------------------------------------------------------------------------------------------

    def _nonsense(self, kind: str, argument: str) -> Refusal | None:
        if kind not in KINDS:
            return Refusal(RefusalCode.MALFORMED, f"there is no change {kind[:40]!r}; there are {', '.join(KINDS)}")
        if not 0 < len(argument) <= ARGUMENT_CHARACTERS_MAX:
            return Refusal(RefusalCode.MALFORMED, f"{kind} needs a name of 1 to {ARGUMENT_CHARACTERS_MAX} characters")
        if kind == PROTOCOL and argument not in PROTOCOLS:
            return Refusal(
                RefusalCode.UNKNOWN_PROTOCOL, f"there is no protocol {argument!r}; there are {' and '.join(PROTOCOLS)}"
            )
        return None

    def holds_already(self, kind: str, argument: str) -> bool:
        """Return whether the group is already what the change would make it."""
        configuration = self._configuration()
        voter = configuration.member(argument) is not None
        match kind:
            case "add" | "demote":
                return argument in configuration.mirrors
            case "promote":
                return voter
            case "remove":
                return not configuration.names(argument)
            case "protocol":
                return configuration.protocol == argument
            case _:
                return argument == self.state.node

    def _busy(self, office: Office) -> Refusal | None:
        change = self.current(office)
        if self.state.leaving or office.successor:
            return Refusal(RefusalCode.HANDING_OVER, "the office is being handed over: ask again in a moment")
        if change is not None:
            under_way = f"{change.kind} {change.argument}"
        elif self.state.log.open_configuration():
            under_way = "a disk is re-admitted"
        else:
            return None
        return Refusal(RefusalCode.BUSY, f"another change is under way ({under_way}): ask again when it is done")

    def unsafe(self, kind: str, argument: str, office: Office) -> Refusal | None:
        """Return why a change must not be made now, and what to do instead (None: it may)."""
        match kind:
            case "add":
                return self._addition_unsafe(argument)
            case "promote":
                return self._promotion_unsafe(argument, office)
            case "demote":
                return self._loss_unsafe(argument, office) if self._votes(argument) else no_voter(argument)
            case "remove":
                return self._loss_unsafe(argument, office) if self._votes(argument) else None
            case "move":
                return self._move_unsafe(argument, office)
            case _:
                return None

    def _votes(self, node: str) -> bool:
        return self._configuration().member(node) is not None

    def _addition_unsafe(self, node: str) -> Refusal | None:
        if self._votes(node):
            return Refusal(RefusalCode.ALREADY_VOTER, f"{node} is a voter already: demote it if it shall be a mirror")
        if len(self._configuration().mirrors) >= MIRRORS_MAX:
            return Refusal(
                RefusalCode.TOO_MANY_MIRRORS,
                f"the group has {MIRRORS_MAX} mirrors, and that is the most: remove one first",
            )
        return None

    def _move_unsafe(self, node: str, office: Office) -> Refusal | None:
        if not self._votes(node):
            return no_voter(node, ": only a voter can be its coordinator")
        if not office.authority.peers[node].willing:
            return Refusal(
                RefusalCode.NOT_IN_VIEW,
                f"{node} takes no office: it is drained (replicad node undrain {node}), or about to stop",
            )
        if node not in office.view.joined or not office.view.fresh(office.authority.peers[node]):
            return Refusal(
                RefusalCode.NOT_IN_VIEW,
                f"{node} is not in the view: it must answer and have caught up before it takes the office",
            )
        return None

    def _promotion_unsafe(self, node: str, office: Office) -> Refusal | None:
        configuration = self._configuration()
        if node not in configuration.mirrors:
            return Refusal(
                RefusalCode.NOT_MIRROR,
                f"{node} is no mirror of this group: add it first, and promote it once it has caught up",
            )
        if len(configuration.members) >= VOTERS_MAX:
            return Refusal(
                RefusalCode.TOO_MANY_VOTERS,
                f"the group has {VOTERS_MAX} voters, and that is the most: demote one first",
            )
        unfit = self._unfit(node)
        if unfit is not None:
            return unfit
        voters = len(configuration.members) + 1
        answering = self._answering(office) + 1
        if answering < _majority(voters):
            return Refusal(
                RefusalCode.NO_MAJORITY,
                f"with {node} a majority would be {_majority(voters)} of {voters} voters, and only {answering} answer: "
                f"bring back or remove those that are silent first",
            )
        return None

    def _unfit(self, node: str) -> Refusal | None:
        """Return why a mirror is not yet what a voter must be."""
        state = self.state
        known = self.membership.introductions.get(node)
        if known is None or state.detectors.suspects(node, state.now, Patience.CHANGE):
            return Refusal(
                RefusalCode.SILENT, f"{node} was not heard of lately: see that it runs and reaches {state.node}"
            )
        if known.foreign:
            return Refusal(
                RefusalCode.FOREIGN,
                f"{node} holds data of another cluster, or of an earlier life of the group: move its data directory "
                f"away, and start it again",
            )
        if known.state != "formed":
            return Refusal(
                RefusalCode.BEHIND, f"{node} has not begun to follow the group: promote it once it has caught up"
            )
        if not self.membership.caught_up(known):
            behind = state.log.committed - known.committed
            return Refusal(RefusalCode.BEHIND, f"{node} is {behind} slots behind: promote it once it has caught up")
        if not self.membership.admissible(node, known.disk):
            return Refusal(
                RefusalCode.BEHIND, f"the digest of {node} was not compared yet: promote it once it has caught up"
            )
        return None

    def _loss_unsafe(self, node: str, office: Office) -> Refusal | None:
        voters = len(self._configuration().members) - 1
        if not voters:
            return Refusal(
                RefusalCode.LAST_VOTER, f"{node} is the last voter: promote another first, and move the office there"
            )
        if node == self.state.node:
            return Refusal(
                RefusalCode.COORDINATES, f"{node} is the coordinator: move the office to another voter first"
            )
        answering = self._answering(office, but=node)
        if answering < _majority(voters):
            return Refusal(
                RefusalCode.NO_MAJORITY,
                f"without {node} a majority would be {_majority(voters)} of {voters} voters, and only {answering} "
                f"answer: bring back those that are silent first",
            )
        return None

    def _answering(self, office: Office, but: str = "") -> int:
        """Return how many voters answer, this one included."""
        peers = office.authority.peers.items()
        return 1 + sum(office.view.fresh(peer) for name, peer in peers if name != but)

    def _configuration(self) -> Configuration:
        configuration = self.state.configuration
        if configuration is None:
            raise AssertionError("a coordinator knows its configuration")
        return configuration

    # --- carrying out -----------------------------------------------------------------------------------------------

    def begin_office(self) -> None:
        """Whoever waits for a change of an earlier office asks again."""
        self._seen = self.state.configuration
        self.farewells = []

    def tick(self, office: Office | None, released: int) -> None:
        """Move the change on, or a re-admission; ``released`` is the last epoch that this node handed over."""
        change = self.under_way
        if change is not None and (office is None or change.epoch != office.epoch):
            if change.kind == MOVE and change.epoch == released:
                self._conclude(change, None)
            self.under_way = None
        if office is None or office.successor:
            return
        self._bid_farewell(office)
        office.closing = self.state.leaving
        change = self.under_way
        if change is None:
            if not self.membership.identify(office):
                self.membership.admit(office)
        elif not change.slot:
            done = self.holds_already(change.kind, change.argument)
            refusal = None if done else self.unsafe(change.kind, change.argument, office)
            if done or refusal:
                self._conclude(change, refusal)
                office.view.barred = ""
            else:
                change.slot = self.membership.propose(
                    office, office.view.barred, lambda slot: self._changed(change.kind, change.argument, slot)
                )

    def _bid_farewell(self, office: Office) -> None:
        """Tell who lost its vote or its place, once enough others know.

        Nobody announces to it any more that its own entry is committed. But it gives up its vote as soon as it hears
        of it, and until a majority of the others has applied the entry, its vote may still be needed to find it again.
        """
        state = self.state
        for item in list(self.farewells):
            slot, node = item
            known = sum(peer.applied >= slot for peer in office.authority.peers.values())
            if known + (state.applied >= slot) >= state.majority():
                self.farewells.remove(item)
                state.send_durable(node, self.membership.introduction(node))

    def _changed(self, kind: str, argument: str, slot: int) -> Configuration:
        configuration = self._configuration()
        match kind:
            case "add":
                return configuration.with_mirror(argument, slot)
            case "promote":
                return configuration.with_voter(argument, self.membership.introductions[argument].disk, slot)
            case "demote":
                return configuration.with_demoted(argument, slot)
            case "remove":
                return configuration.without(argument, slot)
            case _:
                return configuration.with_protocol(argument, slot)

    def settle(self, office: Office) -> None:
        """End of a step: answer for a change that is committed by now; tell those who lost their part by it."""
        configuration = self._configuration()
        if configuration is self._seen:
            return
        before, self._seen = self._seen, configuration
        self.membership.beaten_at = -(10**12)  # a new mirror hears of it at once
        if before is not None:
            demoted = [node for node in before.nodes() if node in configuration.mirrors]
            removed = [node for node in (*before.nodes(), *before.mirrors) if not configuration.names(node)]
            for node in (*demoted, *removed):
                self.farewells.append((configuration.slot, node))
            added = [node for node in configuration.mirrors if not before.names(node)]
            for node in (*removed, *added):
                # What it said before says nothing of what comes after: it may have given up the disk that it named.
                self.membership.introductions.pop(node, None)
        change = self.current(office)
        if change is not None and change.slot and configuration.slot >= change.slot:
            office.view.barred = ""
            self._conclude(change, None)

    # --- answering --------------------------------------------------------------------------------------------------

    def _conclude(self, change: Change, refusal: Refusal | None) -> None:
        self.under_way = None
        code, sentence = (refusal.code.wire, refusal.sentence) if refusal else ("", "")
        self.state.event("change_ends", kind=change.kind, argument=change.argument, refusal=sentence, code=code)
        for waiter in change.waiting:
            self._answer(waiter, refusal)

    def _answer(self, waiter: Waiter, refusal: Refusal | None) -> None:
        self.answered[waiter] = refusal
        if len(self.answered) > WAITING_MAX:
            del self.answered[next(iter(self.answered))]
        node, boot, number = waiter
        code, sentence = (refusal.code.wire, refusal.sentence) if refusal else ("", "")
        answer = ChangeOutcome(boot, number, code, sentence)
        if node == self.state.node:
            self.requests.on_outcome(answer)
        else:
            self.state.send(node, answer)


@dataclass(slots=True)
class Request:
    """A change that was asked for here."""

    version: int
    """Of the configuration under which it was asked for."""
    kind: str
    argument: str
    asked_at: int
    sent_at: int = 0
    sent_to: tuple[int, str] = (0, "")


class ChangeRequests:
    """The requester's side: asks the coordinator, and the next one, until there is an answer."""

    def __init__(self, state: GroupState) -> None:
        self.state = state
        self.pending: dict[int, Request] = {}
        self.last = 0

    def add(self, kind: str, argument: str) -> int:
        """Note a change to ask for; returns its number."""
        self.last += 1
        if len(self.pending) < WAITING_MAX:
            configuration = self.state.configuration
            version = configuration.version if configuration else 0
            self.pending[self.last] = Request(version, kind, argument, self.state.now)
        else:
            refusal = Refusal(
                RefusalCode.OVERLOADED,
                f"{WAITING_MAX} changes wait here for the coordinator already: ask again later",
            )
            self.state.out.changes.append((self.last, refusal))
        return self.last

    def ask(self, office: Office | None, desk: ChangeDesk) -> None:
        """Ask for whatever the coordinator of the moment was not asked lately."""
        state = self.state
        serving = (state.epoch, state.coordinator)
        for number, request in list(self.pending.items()):
            if state.now - request.asked_at > PATIENCE_LEASES * state.limits.lease_us:
                del self.pending[number]  # whoever wanted to know has given up long ago
                continue
            if not state.coordinator:
                continue
            if request.sent_to == serving and state.now - request.sent_at < state.limits.lease_us:
                continue
            request.sent_to, request.sent_at = serving, state.now
            message = ChangeRequest(state.boot, number, request.version, request.kind, request.argument)
            if office is not None:
                desk.on_request(state.node, message, office)
            elif state.coordinator != state.node:
                state.send(state.coordinator, message)

    def on_outcome(self, message: ChangeOutcome) -> None:
        """The coordinator answered a request of this process."""
        self._end(message.boot, message.change, from_wire(message.code, message.sentence))

    def on_answer(self, message: ChangeAnswer) -> None:
        """A coordinator that speaks version 1 answered."""
        self._end(message.boot, message.change, from_sentence(message.refusal))

    def _end(self, boot: int, number: int, refusal: Refusal | None) -> None:
        if boot == self.state.boot and self.pending.pop(number, None) is not None:
            self.state.out.changes.append((number, refusal))


def no_voter(node: str, more: str = "") -> Refusal:
    """Return the refusal of a node that has no vote."""
    return Refusal(RefusalCode.NOT_VOTER, f"{node} is no voter of this group{more}")


def _majority(voters: int) -> int:
    return voters // 2 + 1
