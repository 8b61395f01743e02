"""``replicad checkpoint``: take one now."""

from __future__ import annotations

import click

from replicad.cli.nodes import Address, addr_option, request
from replicad.cli.output import examples, print_json

CHECKPOINT_SECONDS = 70.0
"""Above the minute that a node waits for it."""


@click.command(epilog=examples("replicad checkpoint", "REPLICAD_ADDR=10.0.0.7:8001 replicad checkpoint --json"))
@addr_option
@click.option("--json", "as_json", is_flag=True, help="Print slot and digest as JSON.")
def checkpoint(addresses: list[Address], *, as_json: bool) -> None:
    """Take a checkpoint now; return when it is committed at all members of the view.

    Exit codes: 0 taken, 3 not known, 4 no node could do it.
    """
    import json

    answer = request(
        addresses,
        "POST",
        "/v1/replicad/checkpoint",
        seconds=CHECKPOINT_SECONDS,
        attempt_seconds=CHECKPOINT_SECONDS,
    )
    taken = json.loads(answer.body)
    if as_json:
        print_json(taken)
    else:
        click.echo(f"checkpoint at slot {taken.get('slot')}, digest {taken.get('digest')}")
