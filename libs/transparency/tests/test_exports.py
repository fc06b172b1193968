"""Lines of an export: whichever way one is read, it says the same."""

from __future__ import annotations

import pickle

import pytest
from authpipe_transparency import FormatError, commitment, encode_event, record_of
from authpipe_transparency.events import emitted
from authpipe_transparency.exports import LeafLine, read_line, read_shown, write_line
from authpipe_transparency.findings import Finding, Kind
from hypothesis import given
from hypothesis import strategies as st

RECORD = record_of(
    "vault",
    7,
    encode_event(
        {
            "actor": "api_key:key_41",
            "id": "9f" * 16,
            "name": "RECORD_KEY_RELEASED",
            "outcome": "SUCCEEDED",
            "request": "req_1",
            "time": "2026-11-26T16:39:01.000000Z",
            "version": 3,
            "workspace": "ws_1",
        }
    ),
)
SALT = bytes(range(32))
LINE = write_line(LeafLine(17, 3, commitment(SALT, RECORD), RECORD, SALT)).removesuffix(b"\n")


def test_a_finding_is_the_same_in_the_process_that_asked_for_it() -> None:
    found = Finding(Kind.CHANGED, "leaf 3")
    told = pickle.loads(pickle.dumps(found))  # noqa: S301  # our own
    assert (told.kind, str(told)) == (Kind.CHANGED, str(found))


def test_an_event_is_read_at_once_as_it_is_read_in_two_steps() -> None:
    shown = read_shown(LINE)
    assert shown is not None
    assert shown == (read_line(LINE), emitted(RECORD))


@pytest.mark.promise("P31")
@given(at=st.integers(0, len(LINE)), removed=st.integers(0, 3), added=st.binary(max_size=3))
def test_what_is_read_at_once_is_taken_by_the_two_steps_too(at: int, removed: int, added: bytes) -> None:
    line = LINE[:at] + added + LINE[at + removed :]
    shown = read_shown(line)
    try:
        found = read_line(line)
        steps = (found, emitted(found.record)) if isinstance(found, LeafLine) and found.record else None
    except FormatError:
        steps = None
    assert shown == steps
