"""API keys and the MAC over the rows that give access."""

from __future__ import annotations

import dataclasses
import os

import pytest
from authpipe_gateway_authority.domain.api_keys import ApiKeyRow
from authpipe_gateway_authority.key_format import Form, hash_token, is_well_formed, new_token
from authpipe_sensitive import Secret
from hypothesis import given
from hypothesis import strategies as st

ROW = ApiKeyRow("ws_a", "key_1", "name", bytes(32), ("connections:read",), "active", 1).sealed(Secret(b"k" * 32))


def test_an_api_key_has_its_shape_and_checksum() -> None:
    with new_token(Form.API_KEY, "test", os.urandom) as key:
        text = bytes(key.expose())
    assert text.startswith(b"ap_test_")
    assert len(text) == 57
    assert is_well_formed(Form.API_KEY, Secret(text))


@given(position=st.integers(0, 56), byte=st.integers(0, 255))
def test_a_changed_character_is_noticed_without_a_database(position: int, byte: int) -> None:
    with new_token(Form.API_KEY, "test", lambda size: bytes(size)) as key:
        text = bytearray(key.expose())
    if text[position] != byte:
        text[position] = byte
        assert not is_well_formed(Form.API_KEY, Secret(text))


def test_what_is_stored_is_a_keyed_hash() -> None:
    assert hash_token(Secret(b"a" * 32), Secret(b"key")) != hash_token(Secret(b"b" * 32), Secret(b"key"))


@pytest.mark.case(14)
@pytest.mark.parametrize(
    "change",
    [
        {"workspace": "ws_b"},
        {"scopes": ("connections:read", "tokens:read")},
        {"state": "revoked"},
        {"epoch": 2},
        {"key_hash": b"\x01" * 32},
        {"mac": bytes(32)},
        {"mac": b""},
    ],
)
def test_a_row_that_somebody_else_wrote_is_not_genuine(change: dict[str, object]) -> None:
    assert ROW.is_genuine(Secret(b"k" * 32))
    assert not dataclasses.replace(ROW, **change).is_genuine(Secret(b"k" * 32))  # type: ignore[arg-type]
    assert not ROW.is_genuine(Secret(b"another key of thirty-two bytes!"))
