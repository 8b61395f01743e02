"""Finds the first seed that notices each mutation without a script, and writes ``mutations/recorded.py`` anew.

``python -m replicad.lab.record``: to be run after a change of the protocol, which moves what seeds come to.
"""

from __future__ import annotations

import sys
from pathlib import Path

from replicad.lab import mutations
from replicad.lab.runner import registered, try_mutation
from replicad.lab.trial import Kind

HEADING = "Mutation -> (seed, nodes) of the first trial that notices it: what ``python -m replicad.lab.record`` wrote."
SEEDS = 400
NODES = 3


def main() -> int:
    """Record; returns the exit status: 1 if some mutation was not noticed."""
    lines = []
    missed = 0
    for mutation in registered():
        if mutation.script is not None or mutation.covered_by:
            continue
        found = try_mutation(mutation.name, 1, SEEDS, NODES)
        sys.stderr.write(
            f"{found.name}: {found.seed or 'NOT NOTICED'} {found.rule} {(found.reason or found.otherwise)[:100]!r}\n"
        )
        if found.kind is Kind.OK:
            missed += 1
        else:
            lines.append(f'    "{found.name}": ({found.seed}, {NODES}),\n')
    text = f'"""{HEADING}"""\n\nRECORDED: dict[str, tuple[int, int]] = {{\n{"".join(lines)}}}\n'
    (Path(mutations.__file__).parent / "recorded.py").write_text(text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
