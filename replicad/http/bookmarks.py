"""Bookmarks: what a session has seen of each group, as a text that its client carries from one node to the next.

A bookmark is a version vector, ``group id:index`` pairs separated by commas. A replica that has applied the index of
its group may serve the session: it shows everything that the session has read or written before. Clients send back what
they got and look at nothing in it.
"""

from __future__ import annotations

import re

from multidict import CIMultiDictProxy, istr

from replicad.core.model.errors import RequestError
from replicad.http.parameters import U64_MAX

HEADER = istr("X-Replicad-Bookmark")
LINE = b"X-Replicad-Bookmark: %b:%d\r\n"
"""The header line of a session that begins here: group id, index."""

GROUPS_MAX = 64
BYTES_MAX = 4_096
PAIR = r"[A-Za-z0-9_.~-]{1,128}:[0-9]{1,20}"
SHAPE = re.compile(f"{PAIR}(?:,{PAIR})*")
SEND_BACK = "send what the last answer carried, unchanged, or leave the header out to begin a new session"


class Bookmark:
    """The bookmark of one request: group id -> index."""

    __slots__ = ("indexes",)

    def __init__(self, indexes: dict[str, int]) -> None:
        self.indexes = indexes

    def index(self, group: str) -> int:
        """Return the index that the session has seen of a group; 0 if it has seen nothing."""
        return self.indexes.get(group, 0)

    def moved(self, group: str, index: int) -> str:
        """Return the text of this bookmark once its session has also seen ``index`` of ``group``."""
        indexes = {**self.indexes, group: max(index, self.index(group))}
        return ",".join(f"{name}:{indexes[name]}" for name in sorted(indexes))

    def check_room(self, group: str) -> None:
        """Refuse a bookmark that has no room for an index of ``group``, before anything is done under it."""
        grown = self.moved(group, U64_MAX)
        if len(grown) > BYTES_MAX or grown.count(",") >= GROUPS_MAX:
            raise bad(
                f"the bookmark in {HEADER} has no room for another group (it holds {len(self.indexes)}, at most "
                f"{GROUPS_MAX} in {BYTES_MAX} bytes): begin a new session without it"
            )


def bad(sentence: str) -> RequestError:
    """Return the error of a bookmark that is none."""
    return RequestError("bad_bookmark", sentence)


def decode(text: str) -> Bookmark:
    """Return the bookmark that a text means; raises RequestError with a sentence when it is none."""
    if len(text) > BYTES_MAX:
        raise bad(f"the bookmark in {HEADER} is longer than {BYTES_MAX} bytes: {SEND_BACK}")
    if SHAPE.fullmatch(text) is None:
        raise bad(f"the header {HEADER} holds no bookmark of replicad: {SEND_BACK}")
    pairs = [pair.rpartition(":") for pair in text.split(",")]
    indexes = {group: int(index) for group, _, index in pairs}
    if len(indexes) < len(pairs):
        raise bad(f"the bookmark in {HEADER} names a group twice: {SEND_BACK}")
    if len(indexes) > GROUPS_MAX:
        raise bad(f"the bookmark in {HEADER} names more than {GROUPS_MAX} groups: {SEND_BACK}")
    if max(indexes.values()) > U64_MAX:
        raise bad(f"the bookmark in {HEADER} has an index above {U64_MAX}: {SEND_BACK}")
    return Bookmark(indexes)


def brought(headers: CIMultiDictProxy[str], group: str) -> Bookmark:
    """Return the bookmark that a request for ``group`` brings; raises RequestError for a bad one."""
    texts = headers.getall(HEADER)
    if len(texts) > 1:
        raise bad(f"the header {HEADER} is given twice: {SEND_BACK}")
    bookmark = decode(texts[0])
    bookmark.check_room(group)
    return bookmark


def line(bookmark: Bookmark | None, group: str, index: int) -> bytes:
    """Return the header line that an answer carries after its session has seen ``index`` of ``group``."""
    if bookmark is None:
        return LINE % (group.encode(), index)
    return b"X-Replicad-Bookmark: %b\r\n" % bookmark.moved(group, index).encode()
