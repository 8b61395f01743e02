"""Running one node in the foreground: what ``replicad serve`` and the children of ``replicad up`` do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

import structlog
import uvloop

from replicad.cli.serve_codes import EXIT_FAILED, EXIT_UNUSABLE
from replicad.core.journal.segments import FormatError
from replicad.http.server import HttpServer, ServerLimits
from replicad.native.server import NativeLimits, NativeServer
from replicad.node import events
from replicad.node.identity import DirectoryError
from replicad.node.runtime import FAILED, RESTART, NodeRuntime
from replicad.node.settings import parse_address
from replicad.node.transport import ListenError

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.node.settings import Settings

SWITCH_SECONDS = 0.0005
"""The message log's thread gets the interpreter this soon after a flush, not only after Python's usual 5 ms."""

DESCRIPTORS_RESERVED = 128
"""File descriptors that stay free for files, peers and the loop itself."""

FORWARD_SPARE_SECONDS = 3.0
"""A request that is passed on may take so much longer than a member's own deadline: the member's answer counts."""

GRACE_SECONDS = 5.0
"""How long requests in flight may take to finish when the node stops."""

YOUNG_OBJECTS, YOUNG_COLLECTIONS = 100_000, 50
"""Collections are rare: serving makes few cycles, and each look at everything costs milliseconds."""

COLLECT_SECONDS = 1.0
"""Young objects are looked at so often, however few: an error and its traceback may hold a large request in a cycle."""


def serve(settings: Settings) -> int:
    """Run the node until it is told to stop; returns the exit code."""
    sys.setswitchinterval(SWITCH_SECONDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # connections must not use up what files need
    os.umask(0o027)  # what clients store is nobody else's business
    settings.data.mkdir(parents=True, exist_ok=True)
    process = settings.process
    events.configure(
        node=settings.node,
        level=process.log_level,
        form=process.log_format,
        directory=settings.data if process.log_file else None,
        file_bytes=process.log_file_bytes,
        files=process.log_files,
    )
    if process.scheduling == "batch":
        with contextlib.suppress(OSError):  # a container may forbid it; it only makes things faster
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    for warning in settings.warnings:
        structlog.get_logger("replicad").warning("settings", hint=warning)
    pid_file = settings.data / "replicad.pid"
    outcome = RESTART
    try:
        while outcome == RESTART:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outcome = runner.run(_run(settings, pid_file))
    except (DirectoryError, FormatError, ListenError, OSError) as error:
        structlog.get_logger("replicad").error("cannot_start", reason=str(error))
        return EXIT_UNUSABLE
    if outcome == FAILED:
        sys.stderr.flush()
        os._exit(EXIT_FAILED)  # at once: nothing may be flushed or sent any more
    return 0


def _collect(loop: asyncio.AbstractEventLoop) -> None:
    gc.collect(0)
    loop.call_later(COLLECT_SECONDS, _collect, loop)


async def _run(settings: Settings, pid_file: Path) -> str:
    runtime = NodeRuntime(settings)
    http_connections, native_connections = connections_max(settings)
    http = HttpServer(
        runtime,
        settings.http_listen.host,
        settings.http_listen.port,
        ServerLimits(
            connections=http_connections,
            forward_seconds=settings.process.request_timeout_ms / 1000 + FORWARD_SPARE_SECONDS,
        ),
    )
    native = None
    if settings.own.native_listen:
        native = NativeServer(
            runtime, *parse_address(settings.own.native_listen), NativeLimits(connections=native_connections)
        )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, runtime.stop)
    try:
        await runtime.start()
        if runtime.outcome == RESTART:
            return RESTART
        await http.start()
        if native is not None:
            await native.start()
        await runtime.join()
        _note_process(pid_file)
        structlog.get_logger("replicad").info(
            "listening", http=str(settings.http_listen), native=settings.own.native_listen
        )
        gc.collect()
        gc.freeze()
        gc.enable()
        gc.set_threshold(YOUNG_OBJECTS, YOUNG_COLLECTIONS, 100)
        _collect(loop)
        outcome = await runtime.run()
        if outcome == FAILED:
            return outcome
        if native is not None:
            native.announce("this node stops", GRACE_SECONDS)  # clients move before the office does
        if outcome != RESTART:
            await runtime.leave()
        await asyncio.gather(http.stop(GRACE_SECONDS), *([native.stop(GRACE_SECONDS)] if native is not None else []))
    finally:
        if not runtime.failed:
            await runtime.close()
        _forget_process(pid_file)
    return outcome


def connections_max(settings: Settings) -> tuple[int, int]:
    """Return how many HTTP and native connections may be open: always fewer than there are file descriptors."""
    http = settings.process.http_connections_max
    native = settings.process.native_connections_max if settings.own.native_listen else 0
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors < 0:
        return http, native
    spare = max(2, descriptors - DESCRIPTORS_RESERVED)
    native = min(native, spare // 2)
    return min(http, spare - native), native


def _note_process(pid_file: Path) -> None:
    """Write down which process this is, for people; the directory is held by a lock, not by this."""
    pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")


def _forget_process(pid_file: Path) -> None:
    with contextlib.suppress(OSError):
        pid_file.unlink()
