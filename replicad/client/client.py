"""The client: one group's keys, through whichever node serves them.

Everything that is awaited at the same time shares one connection: operations that are submitted in one turn of the
event loop travel in one frame. When a node fails, is stopped or cannot serve, the client goes on with another one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

from replicad.client.errors import DefiniteError, PartlyDoneError
from replicad.client.operation import Frame, Operation
from replicad.client.route import Route
from replicad.client.wire import CONSISTENT, GET, LEADER, NUMBER_MAX, STALE
from replicad.core.model.operations import ACK_ALL, ACK_MAJORITY, ACK_ONE, DELETE, PUT

LEVELS = {"leader": LEADER, "consistent": CONSISTENT, "stale": STALE}
ACKS = {"all": ACK_ALL, "majority": ACK_MAJORITY, "one": ACK_ONE}
SLICE = 4_096
"""So many operations of one ``…_many`` call are under way at once."""

Key = str | bytes


class Written(NamedTuple):
    """What became of a write."""

    done: bool
    """False: its condition (``cas``) failed."""
    index: int  # type: ignore[assignment]  # the domain's word, though tuples have a method of that name
    """Index of this operation in the group; 0 with ``ack`` majority or one, whose index nobody knows yet."""


class Entry(NamedTuple):
    """What a key holds."""

    value: bytes
    modify_index: int
    flags: int
    create_index: int


class Client:
    """Reads and writes of one group.

    ``addresses``: ``host:port`` of the native ports of some nodes; the others are learnt from them. ``cluster``: refuse
    any other. ``timeout_s``: how long an operation may take with all of its retries. ``queue_max``: operations under
    way, 1 or more; the next one is refused with DefiniteError("overloaded"), but ``…_many`` wait for room.

    Every operation raises DefiniteError (nothing happened) or UnknownOutcomeError (a write may have happened).
    """

    def __init__(
        self,
        addresses: Sequence[str],
        group: str = "default",
        *,
        cluster: str = "",
        timeout_s: float = 10.0,
        queue_max: int = 16_384,
    ) -> None:
        if isinstance(addresses, str) or not addresses:
            raise ValueError('addresses must be a list such as ["127.0.0.1:7001"], with at least one')
        if queue_max < 1:
            raise ValueError(f"queue_max must be 1 or more, not {queue_max}")
        self.timeout_s = timeout_s
        self.queue_max = queue_max
        self._route = Route(addresses, group, cluster, timeout_s)
        self._nonce = secrets.token_bytes(10)
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        """Connect to the first node that answers; raises ClientError when none does in time."""
        self._loop = asyncio.get_running_loop()
        await self._route.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what is not answered fails."""
        self._route.close()

    @property
    def address(self) -> str:
        """Where the node is that serves this client now; "" while there is none."""
        return self._route.address

    @property
    def coordinator(self) -> str:
        """The name of the group's coordinator, as far as the node knows that serves this client; "" otherwise."""
        return self._route.coordinator

    # --- reads ------------------------------------------------------------------------------------------------------

    async def get(self, key: Key, *, consistency: str = "leader", max_stale_ms: int | None = None) -> bytes | None:
        """Return the value of a key, None if there is no such key (for the parameters see :meth:`get_entry`)."""
        entry = await self.get_entry(key, consistency=consistency, max_stale_ms=max_stale_ms)
        return None if entry is None else entry.value

    async def get_entry(
        self, key: Key, *, consistency: str = "leader", max_stale_ms: int | None = None
    ) -> Entry | None:
        """Return the entry of a key, None if there is no such key.

        ``consistency``: ``leader``, linearizable; ``consistent``, the same without trusting a clock; ``stale``, what
        the node has that serves this client, not older than ``max_stale_ms`` if that is given, and never older than
        what this client has read or written.
        """
        frame = _read_frame(consistency, max_stale_ms)
        return _entry(await self._submit((GET, _key(key)), frame, is_write=False, repeatable=True))

    async def get_many(
        self, keys: Iterable[Key], *, consistency: str = "leader", max_stale_ms: int | None = None
    ) -> list[Entry | None]:
        """Return the entries of many keys, in order; they need not be of one moment.

        When some fail, the first one's error is raised after all have ended.
        """
        frame = _read_frame(consistency, max_stale_ms)
        operations = [(GET, _key(key)) for key in keys]
        results = await self._submit_all(operations, frame, is_write=False, repeatable=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [_entry(result) for result in results]

    # --- writes -----------------------------------------------------------------------------------------------------

    async def put(
        self,
        key: Key,
        value: bytes,
        *,
        flags: int = 0,
        cas: int | None = None,
        ack: str | None = None,
        safe: bool | None = None,
    ) -> Written:
        """Write a value.

        ``cas``: only if the key's modify index is this (0: if there is no such key). ``ack``: ``all``, ``majority`` or
        ``one``; None: the group's own. ``safe``: give the write an id, so that it is repeated after a lost answer and
        still happens once; without it such a write raises UnknownOutcomeError. None: yes, unless ``ack`` asks for less
        than ``all``, because with an id the node waits for the result.
        """
        identity = self._identity(ack, safe)
        written = await self._submit(
            _put(_key(key), value, flags, cas, identity), _write_frame(ack), is_write=True, repeatable=bool(identity)
        )
        return _written(written)

    async def delete(
        self, key: Key, *, cas: int | None = None, ack: str | None = None, safe: bool | None = None
    ) -> Written:
        """Delete a key; done also if there was none. Parameters as in :meth:`put`."""
        if cas is not None:
            _check_number("cas", cas)
        identity = self._identity(ack, safe)
        fields = (DELETE, _key(key), cas, identity)
        return _written(await self._submit(fields, _write_frame(ack), is_write=True, repeatable=bool(identity)))

    async def put_many(
        self, items: Iterable[tuple[Key, bytes]], *, ack: str | None = None, safe: bool | None = None
    ) -> list[Written]:
        """Write many values; results are in order. They are separate writes, and concurrent.

        What fails is raised after all have ended: the first one's error when all failed alike (then DefiniteError still
        means that nothing happened), otherwise PartlyDoneError, whose ``results`` say what became of each.
        """
        operations = [_put(_key(key), value, 0, None, self._identity(ack, safe)) for key, value in items]
        repeatable = bool(operations and len(operations[0]) == 6)
        results = await self._submit_all(operations, _write_frame(ack), is_write=True, repeatable=repeatable)
        written = [result if isinstance(result, BaseException) else _written(result) for result in results]
        if any(isinstance(result, BaseException) for result in written):
            raise _error_of(written)
        return cast("list[Written]", written)

    # --- on their way -----------------------------------------------------------------------------------------------

    def _identity(self, ack: str | None, safe: bool | None) -> bytes | None:
        if not (ack in {None, "all"} if safe is None else safe):
            return None
        self._number += 1
        return self._nonce + self._number.to_bytes(6, "big")

    def _submit(
        self, fields: tuple[Any, ...], frame: Frame, *, is_write: bool, repeatable: bool
    ) -> asyncio.Future[Any]:
        loop = self._loop
        if loop is None:
            raise RuntimeError("the client is not open: use it as `async with Client(...) as client:`")
        if self._route.under_way >= self.queue_max:
            raise DefiniteError("overloaded", f"this client has {self.queue_max} operations under way", 10)
        future: asyncio.Future[Any] = loop.create_future()
        deadline = loop.time() + self.timeout_s
        self._route.submit(Operation(fields, frame, future, deadline, is_write=is_write, repeatable=repeatable))
        return future

    async def _submit_all(
        self, operations: list[tuple[Any, ...]], frame: Frame, *, is_write: bool, repeatable: bool
    ) -> list[Any]:
        """Return each operation's result, or the exception that is its result, after all have ended."""
        results: list[Any] = []
        for start in range(0, len(operations), SLICE):
            futures: list[asyncio.Future[Any]] = []
            try:
                for fields in operations[start : start + SLICE]:
                    while self._route.under_way >= self.queue_max:
                        await self._route.one_ended()
                    futures.append(self._submit_or_fail(fields, frame, is_write=is_write, repeatable=repeatable))
            except asyncio.CancelledError:
                for future in futures:
                    future.cancel()
                raise
            results += await asyncio.gather(*futures, return_exceptions=True)
        return results

    def _submit_or_fail(
        self, fields: tuple[Any, ...], frame: Frame, *, is_write: bool, repeatable: bool
    ) -> asyncio.Future[Any]:
        """Submit one of many: its refusal is its own result, because others may be under way or done."""
        try:
            return self._submit(fields, frame, is_write=is_write, repeatable=repeatable)
        except DefiniteError as error:
            refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused


def _key(key: Key) -> bytes:
    if isinstance(key, str):
        return key.encode()
    if type(key) is not bytes:
        raise TypeError(f"a key must be text or bytes, not {type(key).__name__}")
    return key


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if not 0 <= value <= NUMBER_MAX:
        raise ValueError(f"{name} must be from 0 to {NUMBER_MAX}, not {value}")


def _put(key: bytes, value: bytes, flags: int, cas: int | None, identity: bytes | None) -> tuple[Any, ...]:
    if type(value) is not bytes:
        raise TypeError(f"a value must be bytes, not {type(value).__name__}")
    _check_number("flags", flags)
    if cas is not None:
        _check_number("cas", cas)
    if identity is None and cas is None and not flags:
        return PUT, key, value
    return PUT, key, value, flags, cas, identity


def _read_frame(consistency: str, max_stale_ms: int | None) -> Frame:
    if consistency not in LEVELS:
        raise ValueError(f"consistency must be leader, consistent or stale, not {consistency!r}")
    if max_stale_ms is not None:
        _check_number("max_stale_ms", max_stale_ms)
        if consistency != "stale":
            raise ValueError('max_stale_ms means something together with consistency="stale" only')
    return LEVELS[consistency], -1 if max_stale_ms is None else max_stale_ms, -1


def _write_frame(ack: str | None) -> Frame:
    if ack is not None and ack not in ACKS:
        raise ValueError(f"ack must be all, majority or one, not {ack!r}")
    return LEADER, -1, -1 if ack is None else ACKS[ack]


def _written(result: tuple[int, int]) -> Written:
    return Written(result[0] == 1, result[1])


def _error_of(results: list[Any]) -> BaseException:
    """Return what to raise for many writes of which some failed."""
    if len({type(result) for result in results}) == 1:
        return cast("BaseException", results[0])
    return PartlyDoneError(results)


def _entry(result: tuple[Any, ...]) -> Entry | None:
    return Entry(*result[1:5]) if result[0] else None
