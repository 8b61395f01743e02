"""What a mutation is, and how it is switched on.

A mutation replaces one method (or a few that cover for each other) while it is on. Random faults must notice it within
a few hundred seeds, by the check of the rule that is missing (``noticed``); where they meet the one bad moment too
rarely, a *script* leads a small cluster right there. A rule that another mechanism covers in the form built here says
so (``covered_by``), and need not be noticed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from replicad.lab.mutations.noticed import NOTICED_BY

Function = Callable[..., Any]
Make = Callable[[Function], Function]
"""Gets the original function and returns the one that breaks the rule."""
Script = Callable[[], None]
"""Runs a small cluster; clean with all rules, raises Violation or Stuck without the one that it is about."""


@dataclass(frozen=True, slots=True)
class Patch:
    """``where.method`` is replaced; ``where`` is ``module:Class``, or a module alone, below ``replicad``."""

    where: str
    method: str
    make: Make

    def owner(self) -> Any:
        """Return the class or module; imported late, so that the registry imports nothing that it does not need."""
        module, _, name = self.where.partition(":")
        found = importlib.import_module(f"replicad.{module}")
        return getattr(found, name) if name else found


@dataclass(slots=True)
class Mutation:
    """One rule switched off."""

    name: str
    rule: str
    """Rule of section 9 of the design, or "slip" for the usual programming errors, or "detector"."""
    description: str
    patches: list[Patch] = field(default_factory=list)
    covered_by: str = ""
    """Why nothing goes wrong without it ("": something does)."""

    @property
    def noticed_by(self) -> tuple[str, ...]:
        """The rules one of which must notice it (none: it is covered)."""
        return NOTICED_BY.get(self.name, ())

    @property
    def script(self) -> Script | None:
        """The script that shows it (None: seeds do)."""
        return SCRIPTS.get(self.name)


MUTATIONS: dict[str, Mutation] = {}
SCRIPTS: dict[str, Script] = {}
"""Mutation -> its script."""


def register(name: str, rule: str, description: str, where: str, method: str) -> Callable[[Make], Make]:
    """Register the decorated function as the ``make`` of a mutation; raises ValueError for a name that is taken."""
    if name in MUTATIONS:
        raise ValueError(f"there is a mutation {name!r} already")

    def add(make: Make) -> Make:
        MUTATIONS[name] = Mutation(name, rule, description, [Patch(where, method, make)])
        return make

    return add


def also(name: str, where: str, method: str) -> Callable[[Make], Make]:
    """Register a further patch of a mutation: of a method that would cover for the first one."""

    def add(make: Make) -> Make:
        MUTATIONS[name].patches.append(Patch(where, method, make))
        return make

    return add


def always(value: Any) -> Make:
    """Return a ``make`` whose method gives ``value``, whatever it is asked."""
    return lambda _original: lambda *_arguments, **_named: value


def instead(function: Callable[..., Any]) -> Make:
    """Return a ``make`` that ignores the original."""
    return lambda _original: function


@contextmanager
def mutated(name: str) -> Iterator[Mutation]:
    """Switch a mutation on for the duration of the block; raises KeyError for an unknown one."""
    mutation = MUTATIONS[name]
    with ExitStack() as stack:
        for patch in mutation.patches:
            owner = patch.owner()
            original = owner.__dict__[patch.method]
            stack.callback(setattr, owner, patch.method, original)
            setattr(owner, patch.method, patch.make(original))
        yield mutation


def covered(name: str, why: str) -> None:
    """Say why nothing goes wrong without this rule in the form built here."""
    MUTATIONS[name].covered_by = why


def scripted(*names: str) -> Callable[[Script], Script]:
    """Let these mutations be shown by the decorated script, not by seeds."""

    def add(script: Script) -> Script:
        SCRIPTS.update(dict.fromkeys(names, script))
        return script

    return add
