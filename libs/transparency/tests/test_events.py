"""The canonical encoding: one spelling for each event, any JSON reader reads it, and a secret does not fit in."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from authpipe_transparency import (
    FormatError,
    Record,
    batch_root,
    batch_statement,
    commitment,
    decode_event,
    encode_event,
    parse_time,
    record_of,
    sign_batch,
    time_text,
    verify_batch,
    ProofError,
)
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

ids = st.from_regex(r"[a-z0-9._:/-]{1,96}", fullmatch=True)
words = st.from_regex(r"[A-Z][A-Z0-9_]{0,63}", fullmatch=True)
required = {
    "actor": ids,
    "id": st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    "name": words,
    "outcome": st.sampled_from(["SUCCEEDED", "FAILED", "REFUSED"]),
    "time": st.integers(0, 4_000_000_000_000_000_000).map(time_text),
}
optional = {
    "class": st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True),
    "count": st.integers(1, 2**53),
    "digest": st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    "grant": ids,
    "purpose": st.from_regex(r"[a-z][a-z0-9_.]{0,63}", fullmatch=True),
    "reason": words,
    "records": st.lists(
        st.from_regex(r"[a-z][a-z0-9_]{0,31}:[1-9][0-9]{0,17}", fullmatch=True), min_size=2, max_size=16
    ).map(" ".join),
    "request": ids,
    "size": st.integers(1, 2**53),
    "source": ids,
    "target": ids,
    "trace": st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    "until": st.integers(0, 4_000_000_000_000_000_000).map(time_text),
    "version": st.integers(1, 2**53),
    "workspace": ids,
}
events = st.fixed_dictionaries(required, optional=optional)
PLAIN = {
    "actor": "api_key:key_41",
    "id": "9f" * 16,
    "name": "RECORD_KEY_RELEASED",
    "outcome": "SUCCEEDED",
    "time": "2026-11-26T16:39:01.000000Z",
}


@pytest.mark.promise("P31")
@given(members=events)
def test_an_event_is_what_any_json_writer_makes_of_it_with_sorted_members(members: dict[str, str | int]) -> None:
    written = json.dumps({**members, "v": 1}, sort_keys=True, separators=(",", ":")).encode()
    assert encode_event(members) == written
    assert decode_event(written) == {name: str(value) for name, value in members.items()} | {"v": "1"}


@given(members=events, sequence=st.integers(1, 2**53))
def test_a_record_carries_its_event_byte_for_byte(members: dict[str, str | int], sequence: int) -> None:
    event = encode_event(members)
    record = Record(record_of("oauth/coordinator", sequence, event))
    assert (record.emitter, record.sequence, record.event) == ("oauth/coordinator", sequence, event)
    assert dict(record) == decode_event(event)


@given(members=events, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_is_another_event_or_none(members: dict[str, str | int], at: int, byte: int) -> None:
    event = bytearray(encode_event(members))
    event[at % len(event)] = byte
    try:
        read = decode_event(bytes(event))
    except FormatError:
        return
    assert encode_event({name: value for name, value in read.items() if name != "v"}) == bytes(event)


@pytest.mark.promise("P07")
@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy",
        "someone@example.com",
        "https://example.com/callback?code=1",
        "two words",
        'a"b',
        "line\nbreak",
        "ä",
        "x" * 97,
    ],
)
@pytest.mark.parametrize("member", sorted({**required, **optional}))
def test_a_token_does_not_fit_into_any_member(secret: str, member: str) -> None:
    with pytest.raises(FormatError) as refused:
        encode_event({**PLAIN, member: secret})
    assert secret not in str(refused.value)
    assert member in str(refused.value)


@pytest.mark.parametrize(
    ("found", "put"),
    [
        ('"actor"', ' "actor"'),
        ('"v":1', '"v":2'),
        ('"v":1', '"v":01'),
        ('"outcome":"SUCCEEDED"', '"outcome":""'),
        ('"v":1}', '"v":1,"x":1}'),
        ('"id":"', '"\\u0069d":"'),
        ("}", "} "),
    ],
)
def test_another_spelling_of_an_event_is_refused(found: str, put: str) -> None:
    event = encode_event(PLAIN).decode()
    assert found in event
    with pytest.raises(FormatError):
        decode_event(event.replace(found, put, 1).encode())


def test_an_unknown_or_missing_member_is_refused() -> None:
    with pytest.raises(FormatError):
        encode_event({**PLAIN, "note": "x"})
    for name in PLAIN:
        with pytest.raises(FormatError):
            encode_event({**PLAIN, name: ""})


def test_the_commitment_is_what_the_page_says_and_hides_its_record_behind_the_salt() -> None:
    record = record_of("vault", 17, encode_event(PLAIN))
    assert commitment(bytes(32), record) != commitment(b"\x01" * 32, record)
    assert re.fullmatch(rb'\{"emitter":"vault","event":\{.*\},"sequence":17\}', record)


@given(nanoseconds=st.integers(0, 4_000_000_000_000_000_000))
def test_a_time_is_read_as_it_was_written(nanoseconds: int) -> None:
    read = parse_time(time_text(nanoseconds))
    assert (read - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6 == pytest.approx(nanoseconds // 1000, abs=1)


@pytest.mark.promise("P31")
def test_a_batch_is_its_emitters_only_unchanged_and_in_its_order() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    batch = [encode_event({**PLAIN, "version": number}) for number in range(1, 6)]
    signature = sign_batch(key, "vault", 41, batch)
    verify_batch(key.public_key(), batch_statement("vault", 41, batch_root(batch), 5), signature)
    for emitter, first, said in (
        ("clientsecrets", 41, batch),
        ("vault", 42, batch),
        ("vault", 41, batch[:4]),
        ("vault", 41, [batch[1], batch[0], *batch[2:]]),
    ):
        with pytest.raises(ProofError):
            verify_batch(key.public_key(), batch_statement(emitter, first, batch_root(said), len(said)), signature)
