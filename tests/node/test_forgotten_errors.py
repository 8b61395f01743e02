"""Errors that nobody waits for any more: which of them stop the node."""

import asyncio
import gc
from types import SimpleNamespace

import pytest

from replicad.core.model.errors import InvariantError, RequestError
from replicad.node.runtime import NodeRuntime


def judged(context):
    """Return what a node does about an error: stop, report it as a bug, or ignore it."""
    done = []
    log = SimpleNamespace(debug=lambda name, **_: done.append(name), error=lambda name, **_: done.append(name))
    node = SimpleNamespace(log=log, fail=lambda _reason, _error: done.append("stop"))
    NodeRuntime._on_exception(node, None, context)
    (what,) = done
    return what


async def forgotten(error):
    """Return what the loop says of a task that failed after everybody had gone away."""
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    async def fail():
        raise error

    task = asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()
    (context,) = said
    return context


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("gone"), "ignored_error"),
        (RequestError("timeout"), "ignored_error"),
        (KeyError("k"), "bug"),
        (InvariantError("broken"), "stop"),
    ],
)
async def test_a_task_that_nobody_waits_for_does_not_stop_the_node(error, expected):
    """Unless a rule is broken: background work fails by itself. The loop names the task; its words mean nothing."""
    context = await forgotten(error)
    assert judged(context) == expected
    assert judged(context | {"message": "something else"}) == expected


@pytest.mark.parametrize(("error", "expected"), [(OSError("full"), "stop"), (KeyError("k"), "stop"), (None, "bug")])
def test_a_callback_that_failed_stops_the_node(error, expected):
    """It may have left the core half-way."""
    assert judged({"message": "an exception that was never retrieved", "exception": error}) == expected
