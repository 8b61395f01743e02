"""What was measured, as values and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
"""Version of the JSON; a file of another version is refused."""


class ResultsError(Exception):
    """A file does not hold results; the message says which file, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of one contender in one round.

    ``value`` has this ``unit`` (``1/s``, ``s``, ``MB``, …); ``extra`` is whatever else is worth keeping, as
    JSON values.
    """

    row: str
    contender: str
    round: int
    value: float
    unit: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured: sizes in bytes, versions by program."""

    cores: int
    processor: str
    memory_bytes: int
    kernel: str
    filesystem: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that one run of the benchmarks found.

    ``begun`` is an ISO date and time, ``seconds`` how long it took; ``failures`` are sentences: no figure was taken
    there, or a figure is not worth much.
    """

    begun: str
    seconds: float
    command: str
    quick: bool
    rounds: int
    machine: Machine
    measurements: tuple[Measurement, ...]
    failures: tuple[str, ...] = ()


def to_json(run: Run) -> str:
    """Return the run as text, with the version of its shape."""
    return json.dumps({"schema": SCHEMA, **asdict(run)}, indent=1) + "\n"


def from_json(text: str, where: str) -> Run:
    """Return the run in a text that ``to_json`` made; raises ResultsError. ``where`` names it in errors."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ResultsError(f"{where} is not JSON: {error}") from None
    version = found.pop("schema", None) if isinstance(found, dict) else None
    if version != SCHEMA:
        raise ResultsError(f"{where} has schema {version!r}, and {SCHEMA} is what can be read; measure anew")
    try:
        return Run(
            **found
            | {
                "machine": Machine(**found["machine"]),
                "measurements": tuple(_measurement(each) for each in found["measurements"]),
                "failures": tuple(found["failures"]),
            }
        )
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{where} is not a whole result: {error}") from None


def _measurement(fields: Mapping[str, Any]) -> Measurement:
    found = Measurement(**fields)
    if type(found.value) not in {int, float} or type(found.extra) is not dict:
        raise TypeError(f"{found.row} of {found.contender} has no number as its value, or no object as its extra")
    return found


def read(file: Path) -> Run:
    """Return the run in a file; raises ResultsError."""
    try:
        return from_json(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise ResultsError(f"{file} cannot be read: {(error.strerror or str(error)).lower()}") from None
