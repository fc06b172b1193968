r"""The canonical encoding of events, version 1: JSON as RFC 8785 (JCS) writes it, with a closed set of members.

event   {"actor":"api_key:key_41…","id":"9f…","name":"RECORD_KEY_RELEASED","outcome":"SUCCEEDED","time":"2026-…Z","v":1,…}
record  {"emitter":"vault","event":<event>,"sequence":17}
entry   SHA-256(salt (32) ‖ record)

Members stand in the order of their names; one that is empty does not stand there; nothing is escaped, for nothing that
would need it is allowed. So whoever has record and salt computes the entry with the standard library of any language,
and what stands in the tree is an entry. The salt goes when the record goes: a kept entry cannot be guessed.

No event can hold a secret. Every member is a number, a word of a closed list, or an id; an id is lower case, of digits,
letters and `._:/-`, at most 96 of them: no JWT, no base64, no e-mail address is written like that.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from authpipe_transparency.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

VERSION = 1
SALT_SIZE = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_last_second: list[int | str] = [0, "1970-01-01T00:00:00"]

# What a member may be. The order is that of the encoding: by name.
_ID = r"[a-z0-9._:/-]{1,96}"
_WORD = r"[A-Z][A-Z0-9_]{0,63}"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
_CLASS = r"[a-z][a-z0-9_]{0,31}"
_COUNT = r"[1-9][0-9]{0,17}"
_MEMBERS: dict[str, str] = {
    "actor": _ID,
    "class": _CLASS,
    "count": _COUNT,
    "digest": r"[0-9a-f]{64}",
    "grant": _ID,
    "id": r"[0-9a-f]{32}",
    "name": _WORD,
    "outcome": r"SUCCEEDED|FAILED|REFUSED",
    "provider": _ID,
    "purpose": r"[a-z][a-z0-9_.]{0,63}",
    "reason": _WORD,
    "records": rf"{_CLASS}:{_COUNT}(?: {_CLASS}:{_COUNT}){{1,15}}",
    "request": _ID,
    "size": _COUNT,
    "source": _ID,
    "target": _ID,
    "time": _TIME,
    "trace": r"[0-9a-f]{32}",
    "until": _TIME,
    "v": r"1",
    "version": _COUNT,
    "workspace": _ID,
}
_NUMBERS = frozenset({"count", "size", "v", "version"})
_REQUIRED = frozenset({"actor", "id", "name", "outcome", "time", "v"})


def _member(name: str, *, is_group: bool) -> str:
    """Gives the pattern of one member. `v` is always there: what stands before it has its comma behind, and the others before."""
    value = f"(?P<{name}>{_MEMBERS[name]})" if is_group else f"(?:{_MEMBERS[name]})"
    member = f'"{name}":' + (value if name in _NUMBERS else f'"{value}"')
    member = member if name == "v" else f"{member}," if name < "v" else f",{member}"
    return member if name in _REQUIRED else f"(?:{member})?"


def _event(groups: Container[str]) -> bytes:
    return (r"\{" + "".join(_member(name, is_group=name in groups) for name in _MEMBERS) + r"\}").encode()


def _record(groups: Container[str]) -> bytes:
    return (
        rb'\{"emitter":"(?P<emitter>[a-z][a-z0-9/-]{0,63})","event":(?P<event>'
        + _event(groups)
        + rb'),"sequence":(?P<sequence>[1-9][0-9]{0,17})\}'
    )


_EVENT = re.compile(_event(_MEMBERS), re.ASCII)
_RECORD = re.compile(_record(_MEMBERS), re.ASCII)
# A record, of which is read who says it.
EMITTED = _record({"time"})
_EMITTED = re.compile(EMITTED, re.ASCII)


def encode_event(members: Mapping[str, str | int]) -> bytes:
    """Writes an event.

    Args:
        members: By name; an empty text, and 0, stand for none. `v` is added.

    Raises:
        FormatError: A member is missing, unknown, or not what it may be: an id in upper case, a text with a space in it.
            The message names the member and does not show it.
    """
    event = ",".join(
        [
            f'"{name}":{value}' if name in _NUMBERS else f'"{name}":"{value}"'
            for name in _MEMBERS
            if (value := VERSION if name == "v" else members.get(name, ""))
        ]
    )
    encoded = f"{{{event}}}".encode()
    if _EVENT.fullmatch(encoded) is None or not members.keys() <= _MEMBERS.keys():
        raise FormatError(f"An event's {_culprit(members)} is not what it may be (docs/audit-format.md).")
    return encoded


def _culprit(members: Mapping[str, str | int]) -> str:
    """Names the first member that is wrong."""
    for name, value in members.items():
        if name not in _MEMBERS:
            return "member that is unknown"
        if value and not re.fullmatch(_MEMBERS[name], str(value), re.ASCII):
            return f"member {name!r}"
    return "set of members"


def decode_event(event: bytes) -> dict[str, str]:
    """Reads an event strictly: what this gives, encoded again, are the same bytes.

    Raises:
        FormatError: It is not in its canonical encoding.
    """
    found = _EVENT.fullmatch(event)
    if found is None:
        raise FormatError("This is not an event in its canonical encoding.")
    return {name: value.decode() for name, value in found.groupdict().items() if value is not None}


def record_of(emitter: str, sequence: int, event: bytes) -> bytes:
    """Puts an event together with its emitter and the emitter's number of it: what an entry commits to."""
    return b'{"emitter":"%b","event":%b,"sequence":%d}' % (emitter.encode(), event, sequence)


class Emitted(NamedTuple):
    """Who says an event.

    Args:
        emitter: The path of the emitter's SPIFFE id.
        sequence: The emitter's number of the event.
        event: The event's own encoding.
        time: When, as it stands there.
    """

    emitter: str
    sequence: int
    event: bytes
    time: str


def emitted(record: bytes) -> Emitted:
    """Gives who says the event of a record that is in its canonical encoding; costs half of reading it.

    Raises:
        FormatError: It is not.
    """
    found = _EMITTED.fullmatch(record)
    if found is None:
        raise FormatError("This is not a record in its canonical encoding.")
    emitter, event, time, sequence = found.groups()
    return Emitted(emitter.decode(), int(sequence), event, time.decode())


class Record(dict[str, str]):
    """The members of an event, and of its record.

    Attributes:
        emitter: The path of the emitter's SPIFFE id.
        sequence: The emitter's number of the event.
        event: The event's own encoding.
    """

    def __init__(self, record: bytes) -> None:
        """Reads a record strictly.

        Raises:
            FormatError: It is not in its canonical encoding.
        """
        found = _RECORD.fullmatch(record)
        if found is None:
            raise FormatError("This is not a record in its canonical encoding.")
        members = {name: value.decode() for name, value in found.groupdict().items() if value is not None}
        self.emitter = members.pop("emitter")
        self.sequence = int(members.pop("sequence"))
        self.event = members.pop("event").encode()
        super().__init__(members)


def commitment(salt: bytes, record: bytes) -> bytes:
    """Commits to a record: the entry that stands in the tree, 32 bytes."""
    return sha256(salt + record).digest()


def time_text(nanoseconds: int) -> str:
    """Writes a time since the epoch in UTC, with microseconds: 2026-11-26T16:39:01.000000Z."""
    seconds, rest = divmod(nanoseconds // 1000, 1_000_000)
    if seconds != _last_second[0]:
        _last_second[:] = [seconds, (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")]
    return f"{_last_second[1]}.{rest:06d}Z"


def parse_time(text: str) -> datetime:
    """Reads a time that `time_text` wrote.

    Raises:
        FormatError: There is no such time.
    """
    if re.fullmatch(_TIME, text, re.ASCII) is None:
        raise FormatError("This is not a time in its canonical encoding.")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise FormatError("There is no such time.") from None
