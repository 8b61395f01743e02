"""Somebody who creates, drops and changes a group of the catalog at random, and writes to it, while faults go on.

The group is always called ``orders``; each life of it has an id, a log and a judge of its own. Nodes follow the
catalog: they open the group, leave it, delete what they held of it, and open it again, all in one process.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import DROPPED, META, GroupDefinition, group_key
from replicad.core.kv.entries import decode_entry
from replicad.core.model.change_kinds import ADD, DEMOTE, MOVE, PROMOTE, REMOVE
from replicad.core.model.operations import ACTIVE, NO_CAS, PUT, REMOTE_WRITE
from replicad.lab.clients import Request
from replicad.lab.contact import Level

if TYPE_CHECKING:
    from replicad.lab.contact import Outcome
    from replicad.lab.simulator import Simulator

NAME = "orders"
WRITE_US, READ_US = 30_000, 30_000
"""Mean time between two writes to the group, and between two reads."""
IDLE_SHARE = 0.25
"""Share of the seeds in which nobody writes to the group: its new disks must be admitted all the same."""
LEVELS = (Level.LINEARIZABLE, Level.CONSISTENT, Level.SESSION)
TOUCH_US = 100_000
KINDS = (ADD, PROMOTE, DEMOTE, REMOVE, REMOVE, MOVE)


class CatalogOperator:
    """Asks random nodes, from :meth:`start` to :meth:`stop`; does nothing in a mix without a catalog."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._random = Random(f"{simulator.seed}/catalog")
        self._reads = Random(f"{simulator.seed}/catalog/reads")
        self._mean = simulator.swarm.nemesis.catalog_us
        self._stopped = False
        self._written = 0

    def start(self) -> None:
        """Begin."""
        if self._mean:
            self._plan(self._mean, self._change)
            if Random(f"{self._simulator.seed}/catalog/idle").random() >= IDLE_SHARE:
                self._plan(WRITE_US, self._write)
            self._plan(READ_US, self._read)
        if self._simulator.swarm.nemesis.diverge_meta_us:
            self._plan(TOUCH_US, self._touch)

    def stop(self) -> None:
        """Ask for nothing any more."""
        self._stopped = True

    def _plan(self, mean: int, act: object) -> None:
        def due() -> None:
            if not self._stopped:
                act()  # type: ignore[operator]
                self._plan(mean, act)

        self._simulator.queue.after(int(self._random.expovariate(1.0) * mean), due)

    def _change(self) -> None:
        random, simulator = self._random, self._simulator
        catalog = simulator.catalog()
        known = catalog.definitions.get(NAME)
        draw, node = random.random(), random.choice(simulator.names)
        if known is None:
            count = random.choice((1, 3, len(simulator.names)))
            members = tuple(sorted(random.sample(simulator.names, min(count, len(simulator.names)))))
            token = f"{random.getrandbits(32):08x}"
            protocol = random.choice((REMOTE_WRITE, ACTIVE))
            self._put(node, GroupDefinition.new(NAME, token, members, protocol=protocol).encode(), "created")
        elif draw < 0.35:
            self._put(node, DROPPED, "dropped")
        else:
            kind = random.choice(KINDS)
            process = simulator.nodes[node].process
            if process is not None:
                simulator.count(f"asked {kind} of {NAME}")
                process.post(process.ask_change, kind, random.choice(simulator.names), NAME)

    def _put(self, node: str, value: bytes, what: str) -> None:
        simulator = self._simulator
        simulator.note(node, f"is asked: {NAME} is {what}")
        request = Request("operator", group_key(NAME), PUT, value)
        cas = simulator.catalog().modified.get(group_key(NAME), 0)

        def answered(outcome: Outcome) -> None:
            simulator.count(f"group {what}" if not outcome.error else f"group not {what}")

        simulator.request_write(node, request, cas, self._fresh(), answered, META)

    def _write(self) -> None:
        self._written += 1
        node = self._random.choice(self._simulator.names)
        request = Request("orders", b"o%d" % self._random.randrange(8), PUT, b"order %d" % self._written)

        def answered(outcome: Outcome) -> None:
            self._simulator.count("orders_ok" if not outcome.error else "orders_failed")

        self._simulator.request_write(node, request, -1, b"", answered, NAME)

    def _read(self) -> None:
        """Read at any level; what the group's judge says of it is all that anybody asks."""
        random = self._reads
        node, level = random.choice(self._simulator.names), random.choice(LEVELS)
        self._simulator.request_read(node, b"o%d" % random.randrange(8), level, _heard, group=NAME)

    def touch(self) -> None:
        """Write to the catalog what says nothing: digests are compared at certain slots only."""
        if self._simulator.swarm.catalog:
            self._touch()
            self._simulator.run_for(TOUCH_US)

    def _touch(self) -> None:
        node = self._reads.choice(self._simulator.names)
        request = Request("operator", b"touched", PUT, b"")
        self._simulator.request_write(node, request, NO_CAS, self._reads.randbytes(16), _heard, META)

    def _fresh(self) -> bytes:
        return self._random.getrandbits(128).to_bytes(16, "big")

    # --- after healing ------------------------------------------------------------------------------------------------

    def missing(self) -> str:
        """Say what is missing until every node has open what the catalog says, and holds nothing of what is gone."""
        simulator = self._simulator
        if not simulator.swarm.catalog:
            return ""
        catalog = simulator.catalog()
        for name, node in simulator.nodes.items():
            process = node.process
            if process is None:
                return f"{name} is down"
            expected = {group for group in catalog.definitions if name in catalog.definitions[group].nodes()}
            opened = set(process.engine.groups) - {META}
            if opened != expected:
                return f"{name} has {sorted(opened)} open, and the catalog says {sorted(expected)}"
            for group in process.engine.groups.values():
                judge = simulator.judge_of(group.id)
                behind = group.id in simulator.other_judges and group.replica.applied < judge.committed
                if behind or not group.replica.coordinator:
                    return f"{name} is at slot {group.replica.applied} of {judge.committed} of {group.id}"
            left = [group for group in node.data if catalog.is_dead(group) and node.holds(group)]
            left += [group for group in process.engine.held if catalog.is_dead(group)]
            if left:
                return f"{name} still holds something of {left}"
        return ""

    def judge(self) -> None:
        """Everything converged: the stores of ``_meta`` and of the group are equal, and what the log says."""
        simulator = self._simulator
        stores: dict[str, dict[str, tuple[int, dict[bytes, bytes]]]] = {}
        for name, node in simulator.nodes.items():
            for group in node.process.engine.groups.values() if node.process is not None else ():
                if group.id in simulator.other_judges:
                    content = {key: decode_entry(data).value for key, data in group.store.scan(b"")}
                    stores.setdefault(group.id, {})[name] = (group.replica.applied, content)
        for identity, found in stores.items():
            simulator.other_judges[identity].healed(found)


def _heard(_outcome: Outcome) -> None:
    """Take an answer."""
