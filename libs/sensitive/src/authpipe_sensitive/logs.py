"""Logs as JSON lines that take only what cannot be a secret.

An event is a fixed phrase; values are numbers, enums, Labels, None and protobuf messages (redacted). Anything else is
refused with `RedactedError` where it is logged, in tests and in production alike. Exceptions show their class and the
places they passed, never their text and never locals.
"""

from __future__ import annotations

import enum
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO, cast

import structlog
from google.protobuf.message import Message

from authpipe_sensitive.errors import DomainError
from authpipe_sensitive.labels import Label, RedactedError
from authpipe_sensitive.redaction import redacted

_PHRASE = re.compile(r"[a-z][a-z0-9 ,_'-]{0,119}")


class Log(Protocol):
    """What may be logged, and how."""

    def debug(self, event: str, **values: object) -> None:
        """Logs what only a developer wants to know."""

    def info(self, event: str, **values: object) -> None:
        """Logs what an operator wants to know."""

    def warning(self, event: str, **values: object) -> None:
        """Logs what an operator should look at."""

    def error(self, event: str, **values: object) -> None:
        """Logs what an operator must look at."""


def get_log() -> Log:
    """Gives the log of this process."""
    return cast("Log", structlog.get_logger())


def configure_logs(process: Label, level: str, stream: TextIO | None = None) -> None:
    """Sets logs up for a process, and silences the text of foreign ones.

    Args:
        process: The name of the process, shown on every line.
        level: debug, info, warning or error.
        stream: Where the lines go; standard error by default.
    """
    lowest = logging.getLevelNamesMapping()[level.upper()]

    def name_process(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    structlog.configure(
        processors=[structlog.processors.add_log_level, name_process, _only_harmless, _render],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.root.handlers = [_ForeignHandler()]
    logging.root.setLevel(max(lowest, logging.WARNING))
    sys.excepthook = _log_uncaught


def _only_harmless(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    phrase = event.pop("event")
    if not isinstance(phrase, str) or _PHRASE.fullmatch(phrase) is None:
        raise RedactedError("A log event is a fixed phrase in lower case, without values in it.")
    level = event.pop("level")
    shown = {name: _harmless(value) for name, value in event.items()}
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": level, "event": phrase, **shown}


def _harmless(value: object) -> object:
    match value:
        case enum.Enum():
            return value.name
        case None | bool() | int() | float() | Label():
            return value
        case Message():
            return redacted(value)
        case DomainError():
            return {"reason": value.reason, **value.metadata}
        case BaseException():
            return describe_exception(value)
        case _:
            raise RedactedError("A log takes numbers, enums, Labels, errors and messages.")


def describe_exception(error: BaseException) -> list[str]:
    """Gives the class of an exception and the places it passed, oldest first; not its text, not its locals."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return [*places, type(error).__qualname__]


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"))


class _ForeignHandler(logging.Handler):
    """Shows that a library logged, where and how gravely; never its text, which nobody has checked."""

    def emit(self, record: logging.LogRecord) -> None:
        where = Label(re.sub(r"[^A-Za-z0-9_.]", "_", record.name)[:80])
        values: dict[str, object] = {"library": where, "line": record.lineno}
        if record.exc_info and record.exc_info[1] is not None:
            values["error"] = record.exc_info[1]
        get_log().warning("a library logged", **values)


def _log_uncaught(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        return
    get_log().error("uncaught", error=error)
