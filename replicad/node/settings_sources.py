"""Where settings come from: a TOML file, then ``REPLICAD_…`` environment variables over it.

=================================  ==========================================================================
``REPLICAD_<SETTING>``             a setting of ``[node]``, or of the ``[nodes.NAME]`` that this process runs
``REPLICAD_CLUSTER_<SETTING>``     of ``[cluster]``; ``REPLICAD_CLUSTER_LIMITS_<SETTING>`` of ``[cluster.limits]``
``REPLICAD_NODES_<NAME>_…``        of any ``[nodes.NAME]``; hyphens become underscores, letters upper case
``REPLICAD_GROUPS_<NAME>_…``       of any ``[groups.NAME]``; names are separated by commas
=================================  ==========================================================================

An empty variable counts as absent: Compose passes such for everything that is not set outside.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from replicad.node.settings_models import (
    ClusterSettings,
    GroupSettings,
    LimitSettings,
    NodeSettings,
    ProcessSettings,
)

PREFIX = "REPLICAD_"
OTHER_VARIABLES = frozenset({"REPLICAD_NODE", "REPLICAD_CONFIG", "REPLICAD_ADDR"})
"""Variables that the command line reads, and which are no settings."""

PATHS = frozenset({"data", "shared_secret_file"})
LISTS = frozenset({"members", "meta"})
Place = tuple[str, ...]


class SettingsError(Exception):
    """Settings that cannot be used; ``sentences`` says for each mistake where it is and what would be right."""

    def __init__(self, sentences: list[str]) -> None:
        self.sentences = sentences
        super().__init__("\n".join(sentences))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; raises SettingsError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError([f"{path}: there is no such file; configs/local.toml is a commented example"]) from None
    except OSError as error:
        raise SettingsError([f"{path}: it cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise SettingsError([f"{path}: it is not UTF-8 text (byte {error.start})"]) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{path}: it is not valid TOML: {str(error)[:1].lower()}{str(error)[1:]}"]) from error


class Overlay:
    """Puts the environment over the tables of a file.

    ``origins`` maps the place of a setting to the variable that gave it; ``unknown`` lists variables that mean nothing.
    """

    def __init__(self, tables: dict[str, Any], node: str | None) -> None:
        self.tables = tables
        self.origins: dict[Place, str] = {}
        self.unknown: list[str] = []
        self._node = node

    def apply(self, environ: Mapping[str, str]) -> None:
        """Apply every variable, those that name a node first, so that ``REPLICAD_DATA`` has the last word."""
        found = sorted(name for name in environ if name.startswith(PREFIX) and environ[name])
        for variable in sorted(found, key=lambda name: not name.startswith(f"{PREFIX}NODES_")):
            if variable in OTHER_VARIABLES:
                continue
            place = self._place(variable.removeprefix(PREFIX).upper())
            if place is None:
                self.unknown.append(variable)
            else:
                self._set(place, variable, environ[variable])

    def _place(self, name: str) -> Place | None:
        lower = name.lower()
        if lower in ProcessSettings.model_fields:
            return ("node", lower)
        if lower in NodeSettings.model_fields and self._node is not None:
            return ("nodes", self._node, lower)
        first, _, rest = lower.partition("_")
        if first == "cluster":
            limit = rest.removeprefix("limits_")
            if rest.startswith("limits_") and limit in LimitSettings.model_fields:
                return ("cluster", "limits", limit)
            return ("cluster", rest) if rest in ClusterSettings.model_fields and rest != "limits" else None
        table: dict[str, type[BaseModel]] = {"nodes": NodeSettings, "groups": GroupSettings}
        if first not in table:
            return None
        for field in table[first].model_fields:
            owner = rest.removesuffix(f"_{field}")
            if owner and owner != rest:
                return (first, self._existing(first, owner), field)
        return None

    def _existing(self, table: str, owner: str) -> str:
        """Return the name in the file that this part of a variable means; a new one otherwise."""
        names = self.tables.get(table)
        for name in names if isinstance(names, dict) else ():
            if name.lower().replace("-", "_") == owner:
                return str(name)
        return owner.replace("_", "-")

    def _set(self, place: Place, variable: str, text: str) -> None:
        tables = self.tables
        for part in place[:-1]:
            tables = tables.setdefault(part, {})
            if not isinstance(tables, dict):
                return  # the file has something else there, which is reported
        tables[place[-1]] = _convert(place, text)
        self.origins[place] = variable


def model_at(place: Place) -> type[BaseModel] | None:
    """Return the model of the table at ``place``, None if there is none."""
    match place:
        case ("cluster",):
            return ClusterSettings
        case ("cluster", "limits"):
            return LimitSettings
        case ("nodes", _):
            return NodeSettings
        case ("groups", _):
            return GroupSettings
        case ("node",):
            return ProcessSettings
    return None


def _convert(place: Place, text: str) -> object:
    """Return what a variable's text means for the setting there; the text itself if it makes no sense."""
    model = model_at(place[:-1])
    kind = None if model is None else model.model_fields[place[-1]].annotation
    if place[-1] in PATHS:
        return str(Path.cwd() / text)
    if place[-1] in LISTS:
        return [name.strip() for name in text.split(",")]
    if kind is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), text)
    if kind is int or int in get_args(kind) or any(int in get_args(part) for part in get_args(kind)):
        try:
            return int(text)
        except ValueError:
            return text
    return text
