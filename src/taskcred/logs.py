"""Structured logs on standard error, with redaction as the last step before writing.

Secrets are a type that masks itself; this is the second line, for text that came from elsewhere. Query
strings are never logged: IBM's clients put API keys into them.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, Final

import structlog
from structlog.types import EventDict, WrappedLogger

from taskcred.config import LogSettings
from taskcred.domain.secret import MASK

_SECRET_NAMES: Final = re.compile(
    r"api_?key|password|secret|token|authorization|cookie|verifier", re.IGNORECASE
)
_SECRET_TEXT: Final = re.compile(
    r"tc[us]_[A-Za-z0-9]{20,}"  # our keys
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JSON web tokens
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"  # Authorization headers
    r"|(?<=\?)[^\s\"']+"  # query strings
)
# What moves a terminal's cursor or begins a line of somebody else's making; tracebacks keep their lines.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def redact_text(text: str) -> str:
    """`text` with whatever looks like a key, a token or a query string replaced by a mask."""
    return _SECRET_TEXT.sub(MASK, text)


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {name: _redact_value(name, value) for name, value in event.items()}


def _redact_value(name: str, value: Any) -> Any:
    if isinstance(value, (int, float, bool)) or value is None:
        return value
    if _SECRET_NAMES.search(name) and name != "event":
        return MASK
    text = redact_text(value if isinstance(value, str) else str(value))
    if name == "event":
        text = text.replace("\n", "\\n")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def configure(settings: LogSettings, role: str) -> None:
    """Send structlog and the standard library's loggers through one chain."""
    text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _add_role(role),
        _redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer() if text else structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    # These say per request or per run what our own events say better, or put text of others into logs.
    for name, level in (
        ("httpx", logging.WARNING),
        ("httpcore", logging.WARNING),
        ("dbos", logging.ERROR),
        ("alembic", logging.WARNING),
    ):
        logging.getLogger(name).setLevel(level)


def _add_role(role: str) -> structlog.types.Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["role"] = role
        return event

    return add
