"""Log lines on stderr: for people, or one JSON object a line. Never a secret: settings hold them as ``SecretStr``."""

from __future__ import annotations

import logging
import sys

import structlog
from aiokafka.errors import KafkaError

from streams.settings import Settings

_QUIET = (
    "faust",
    "mode",
    "aiokafka",
    "kafka",
    "aiohttp",
    "sqlalchemy",
    "alembic",
    "asyncio",
    "streams.faust_app",
    "streams.patience",
    "streams.transport",
    "streams.tables",
    "streams.web.server",
)
"""Libraries, and our subclasses of theirs, whose warnings are worth a line and whose progress is not."""

_LIBRARIES = frozenset(name for name in _QUIET if "." not in name)

SELDOM_SECONDS = 10.0
MOST_LINES = 1_000
"""So many lines are known at most, to say them seldom."""


def configure_logging(settings: Settings) -> None:
    """Set up all logging of this process, whatever was set up before."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    if settings.log_format == "json":
        renderers: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers])
    out = logging.StreamHandler(sys.stderr)
    out.setFormatter(formatter)
    out.addFilter(_without_trace)
    out.addFilter(Seldom("aiokafka"))
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(settings.log_level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("mode.timers").setLevel(logging.ERROR)  # a commit that takes longer than the pause to the next is no news
    logging.raiseExceptions = False  # a full disk or a closed pipe behind stderr must not stop the work


class Seldom:
    """Lets each line of a library through once in ten seconds: Kafka's client tries five times a second to reach a broker that is away, and says so each time.

    Args:
        library: Name of its loggers.
    """

    def __init__(self, library: str) -> None:
        self._library = library
        self._said_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is to be written."""
        if record.name.partition(".")[0] != self._library:
            return True
        line = record.getMessage()
        if record.created - self._said_at.get(line, float("-inf")) < SELDOM_SECONDS:
            return False
        if len(self._said_at) >= MOST_LINES:
            self._said_at.clear()
        self._said_at[line] = record.created
        return True


def _without_trace(record: logging.LogRecord) -> bool:
    """Keep the line in which a library tells of an error that an outage brings, and what it was, without where it was raised: that says nothing about an outage."""
    error = record.exc_info[1] if record.exc_info else None
    library = record.name.partition(".")[0]
    if error is not None and (isinstance(error, KafkaError) or (library in _LIBRARIES and isinstance(error, OSError)) or library == "sqlalchemy"):
        line, what = record.getMessage(), " ".join(str(error).split()) or type(error).__name__
        record.msg, record.args = line if what in line else f"{line}: {what}", ()
        record.exc_info = None
    return True
