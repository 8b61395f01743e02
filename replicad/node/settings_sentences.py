"""Mistakes in settings as plain sentences: where, what is wrong, what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from replicad.node.settings_models import SettingsFile
from replicad.node.settings_sources import Place, model_at

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def sentences(error: ValidationError, source: str, origins: Mapping[Place, str]) -> list[str]:
    """Return one sentence for each mistake; ``source`` is the file's name, ``origins`` names variables by place."""
    return [_sentence(detail, source, origins) for detail in error.errors(include_url=False)]


def _sentence(detail: ErrorDetails, source: str, origins: Mapping[Place, str]) -> str:
    place = tuple(str(part) for part in detail["loc"] if part != "[key]")
    variable = origins.get(place)
    where = f"environment variable {variable}" if variable else source
    path = ".".join(place)
    kind = detail["type"]
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where}: {path}: there is no such setting{_nearest(place)}"
    if kind == "missing":
        return f"{where}: {path} is missing{_example(place)}"
    if kind == "value_error":
        reason = str(context.get("error", detail["msg"]))
        if not place:  # a relation between settings, which names them itself
            return f"{where}: {reason}"
        given = detail["input"]
        return (
            f"{where}: {path}{shown_value(given)}: {reason}" if isinstance(given, str) else f"{where}: {path}: {reason}"
        )
    return f"{where}: {path}{shown_value(detail['input'])}: {expectation(kind, context, detail['msg'])}"


def shown_value(value: object) -> str:
    """Return `` is VALUE`` for a value that is short enough to show."""
    if isinstance(value, bool):
        return f" is {str(value).lower()}"
    if isinstance(value, str | int | float):
        text = f'"{value}"' if isinstance(value, str) else str(value)
        return f" is {text}" if len(text) <= 80 else f" is {text[:77]}…"
    return ""


def expectation(kind: str, context: Mapping[str, Any], message: str) -> str:
    """Return what would be right, from the kind and context of one of pydantic's findings."""
    match kind:
        case "int_type" | "int_from_float" | "int_parsing":
            return "it must be a whole number"
        case "bool_type" | "bool_parsing":
            return "it must be true or false"
        case "string_type":
            return "it must be text in quotes"
        case "tuple_type" | "list_type":
            return 'it must be a list, for example ["n1", "n2", "n3"]'
        case "dict_type" | "model_type" | "model_attributes_type":
            return "it must be a table"
        case "greater_than":
            return f"it must be more than {context['gt']}"
        case "greater_than_equal":
            return f"it must be at least {context['ge']}"
        case "less_than_equal":
            return f"it must be at most {context['le']}"
        case "literal_error":
            return f"it must be one of {context['expected'].replace(chr(39), chr(34))}"
        case "too_short":
            return "it must not be empty"
    return message[:1].lower() + message[1:]


def _nearest(place: Place) -> str:
    model = SettingsFile if len(place) == 1 else model_at(place[:-1])
    if model is None:
        return ""
    close = difflib.get_close_matches(place[-1], model.model_fields, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {'.'.join((*place[:-1], close[0]))}?"
    return f"; settings there are {', '.join(model.model_fields)}"


def _example(place: Place) -> str:
    return {
        ("cluster",): '; begin with [cluster] and name = "some-name"',
        ("cluster", "name"): '; give the cluster a name, for example name = "local"',
        ("nodes",): "; describe each node in a table of its own, for example [nodes.n1]",
    }.get(place, "")
