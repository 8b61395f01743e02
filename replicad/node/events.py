"""The event log: structured lines on standard error and, if asked, in a rotated file.

An event has a name and fields: ``log.info("peer_link_opened", peer="n2")``. Lines of libraries (aiohttp, asyncio) go
the same way. Fields whose name speaks of a secret are masked, whoever logs them.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

FILE_NAME = "replicad.log"
_SECRET_WORDS = ("secret", "password", "token", "authorization", "proof", "nonce")


def configure(
    *,
    node: str,
    level: str = "info",
    form: str = "console",
    directory: Path | None = None,
    file_bytes: int = 16 << 20,
    files: int = 4,
) -> None:
    """Set up logging for this process.

    ``form`` is ``console`` or ``json``; ``directory`` None means no file. The file keeps ``files`` older ones, each of
    at most ``file_bytes``. May be called again (the earlier handlers are closed). Raises OSError if the file cannot
    be opened.
    """

    def name_node(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("node", node)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_node,
        mask_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(_formatter(shared, form, colors=sys.stderr.isatty()))
    handlers: list[logging.Handler] = [console]
    if directory is not None:
        file = _File(directory / FILE_NAME, maxBytes=file_bytes, backupCount=files, encoding="utf-8")
        file.setFormatter(_formatter(shared, form, colors=False))
        handlers.append(file)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level.upper())
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)  # no line per request


def mask_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace the values of fields that must not be seen."""
    for name in event:
        if any(word in name.lower() for word in _SECRET_WORDS) and event[name]:
            event[name] = "***"
    return event


def _formatter(shared: list[Processor], form: str, *, colors: bool) -> logging.Formatter:
    rendering: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if form == "json":
        rendering += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        rendering.append(
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        )
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=rendering)


class _File(RotatingFileHandler):
    """A log file that fails quietly: on a full disk the node has better things to do than to print tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in logging
        """Lose the line; it is on standard error too."""
