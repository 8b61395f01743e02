"""What can go wrong for a client: *definite*, nothing happened, or *unknown*, it may have.

Names are those of the table in ``docs/http.md`` and of the one in ``docs/native.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ClientError(Exception):
    """An operation without a result: which error, a sentence, and when a retry makes sense (0: never)."""

    definite = True

    def __init__(self, name: str, message: str, retry_after_ms: int = 0) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.addresses: tuple[str, ...] = ()
        """With the error ``elsewhere``: where the group's members serve native clients."""


class DefiniteError(ClientError):
    """Nothing happened: the operation may be repeated, or given up."""


class UnknownOutcomeError(ClientError):
    """A write may have happened, or may still happen: repeat it under the same id, or read before writing again."""

    definite = False


class PartlyDoneError(UnknownOutcomeError):
    """Of many writes some failed, and not all of them in the same way: some are done, or may be.

    ``results``: what became of each, in order: a ``Written``, or the ClientError of this one.
    """

    def __init__(self, results: Sequence[Any]) -> None:
        self.results = tuple(results)
        errors = [result for result in self.results if isinstance(result, ClientError)]
        refused = sum(error.definite for error in errors)
        super().__init__(
            "unknown_outcome",
            f"of {len(self.results)} writes {len(self.results) - len(errors)} are done, {refused} are not, and "
            f"{len(errors) - refused} may be; the first error: {errors[0]}",
        )


def make_error(fields: Any) -> ClientError:
    """Return the error that ``[name, message, definite, retry after ms]`` in a frame means."""
    name, message, definite, retry_after_ms = fields[:4]
    return (DefiniteError if definite else UnknownOutcomeError)(name, message, retry_after_ms)
