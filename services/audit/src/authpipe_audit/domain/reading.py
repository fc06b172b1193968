"""What an event is found by."""

from __future__ import annotations

from collections.abc import Mapping

from authpipe_audit.domain.growing import NewEvent
from authpipe_audit.errors import MalformedEventError
from authpipe_transparency import FormatError, decode_event, parse_time

_FOUND_BY = ("actor", "grant", "id", "request", "target", "trace")


def new_event(event: bytes) -> NewEvent:
    """Reads an event that is about to be logged.

    Raises:
        MalformedEventError: It is not in its canonical encoding.
    """
    try:
        members = decode_event(event)
        time = parse_time(members["time"])
    except FormatError:
        raise MalformedEventError from None
    return NewEvent(
        workspace=members.get("workspace", ""),
        name=members["name"],
        outcome=members["outcome"],
        actor=members["actor"],
        target=members.get("target", ""),
        time=time,
        ids=tuple(members[name] for name in _FOUND_BY if name in members),
        event=event,
        write=_write(members),
    )


def _write(members: Mapping[str, str]) -> tuple[str, int] | None:
    match members["name"]:
        case "RECORDS_WRITTEN":
            return members.get("class", ""), int(members.get("version", 0))
        case "RECORDS_DELETED":
            return "", 0
        case _:
            return None
