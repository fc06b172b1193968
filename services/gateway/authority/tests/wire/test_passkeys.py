"""Web Authentication at the door: what a passkey says is verified whole, and what is malformed is refused, never a crash."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from authpipe_gateway_authority.errors import SignInError
from authpipe_gateway_authority.passkeys import WebAuthn
from authpipe_testing.passkey import Passkey, b64
from hypothesis import given, settings
from hypothesis import strategies as st

ORIGIN = "https://dashboard.example"
DOOR = WebAuthn(ORIGIN)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.binary(max_size=60).map(b64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def made(passkey: Passkey) -> dict[str, Any]:
    return passkey.create(json.loads(DOOR.creation(os.urandom(56), "mem_1", "m@people.example", "Shop")))


def signed(passkey: Passkey) -> dict[str, Any]:
    return passkey.get(json.loads(DOOR.request(os.urandom(56))))


def test_a_passkey_is_made_for_our_host_by_a_person_who_was_verified() -> None:
    options = json.loads(DOOR.creation(b"c" * 56, "mem_1", "m@people.example", "Shop"))
    assert options["rp"] == {"id": "dashboard.example", "name": "Authpipe"}
    assert options["challenge"] == b64(b"c" * 56)
    assert options["authenticatorSelection"]["residentKey"] == "required"
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert {each["alg"] for each in options["pubKeyCredParams"]} == {-7, -8, -257}
    asked = json.loads(DOOR.request(b"c" * 56))
    assert (asked["rpId"], asked["userVerification"]) == ("dashboard.example", "required")
    assert not asked.get("allowCredentials"), "nobody learns whose passkeys there are"


def test_what_was_registered_signs_in() -> None:
    passkey = Passkey(ORIGIN)
    new = DOOR.verify_new(DOOR.read_new(json.dumps(made(passkey))))
    assert new.credential_id == passkey.id
    answer = DOOR.read(json.dumps(signed(passkey)))
    assert (answer.user, answer.credential_id) == (b"mem_1", passkey.id)
    assert DOOR.verify(answer, new.credential) == 0


@pytest.mark.parametrize(
    "lie",
    [{"origin": "https://evil.example"}, {"origin": "https://dashboard.example.evil.example"}, {"verifies": False}],
)
def test_a_passkey_of_another_page_or_of_nobody_is_not_registered(lie: dict[str, Any]) -> None:
    passkey = Passkey(ORIGIN)
    for name, value in lie.items():
        setattr(passkey, name, value)
    with pytest.raises(SignInError):
        DOOR.verify_new(DOOR.read_new(json.dumps(made(passkey))))


@pytest.mark.parametrize("part", ["clientDataJSON", "authenticatorData", "signature"])
@given(where=st.integers(0, 10_000), other=st.sampled_from("ABCDEFGHIJKLMNOPabcdefghijklmnop0123456789-_"))
@settings(max_examples=60)
def test_an_answer_with_one_byte_changed_signs_nobody_in(part: str, where: int, other: str) -> None:
    passkey = Passkey(ORIGIN)
    new = DOOR.verify_new(DOOR.read_new(json.dumps(made(passkey))))
    answer = signed(passkey)
    whole = answer["response"][part]
    place = where % (len(whole) - 1)  # not the last: its low bits are none of the value's
    if other == whole[place]:
        return
    answer["response"][part] = whole[:place] + other + whole[place + 1 :]
    with pytest.raises(SignInError):
        DOOR.verify(DOOR.read(json.dumps(answer)), new.credential)


@given(anything)
@settings(max_examples=200)
def test_anything_at_all_is_refused_with_one_error(sent: Any) -> None:
    for read in (DOOR.read, DOOR.read_new):
        with pytest.raises(SignInError):
            read(json.dumps(sent))


@given(st.sampled_from(["clientDataJSON", "attestationObject", "authenticatorData", "signature"]), anything)
@settings(max_examples=200)
def test_a_malformed_part_is_refused_with_one_error(part: str, sent: Any) -> None:
    passkey = Passkey(ORIGIN)
    credential = DOOR.verify_new(DOOR.read_new(json.dumps(made(passkey)))).credential
    new, answer = made(passkey), signed(passkey)
    if part in new["response"]:
        if new["response"][part] == sent:
            return
        new["response"][part] = sent
        with pytest.raises(SignInError):
            DOOR.verify_new(DOOR.read_new(json.dumps(new)))
    if part in answer["response"]:
        answer["response"][part] = sent
        with pytest.raises(SignInError):
            DOOR.verify(DOOR.read(json.dumps(answer)), credential)


@pytest.mark.parametrize("part", ["clientDataJSON", "authenticatorData", "signature", "userHandle"])
def test_a_number_in_the_place_of_bytes_is_not_taken_for_how_many_there_are_to_be(part: str) -> None:
    answer = signed(Passkey(ORIGIN))
    answer["response"][part] = 2**40
    with pytest.raises(SignInError):
        DOOR.read(json.dumps(answer))


def test_nor_is_one_inside_of_what_an_authenticator_attests() -> None:
    new = made(Passkey(ORIGIN))
    # authData: 2^40, an unsigned integer in CBOR.
    forged = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x1b" + (2**40).to_bytes(8, "big")
    new["response"]["attestationObject"] = b64(forged)
    with pytest.raises(SignInError):
        DOOR.read_new(json.dumps(new))


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_any_cbor_of_an_authenticator_is_refused_with_one_error(whole: bytes) -> None:
    new = made(Passkey(ORIGIN))
    new["response"]["attestationObject"] = b64(whole)
    with pytest.raises(SignInError):
        DOOR.verify_new(DOOR.read_new(json.dumps(new)))


@pytest.mark.parametrize("origin", ["http://dashboard.example", "dashboard.example", "https://"])
def test_without_an_https_origin_authority_does_not_start(origin: str) -> None:
    with pytest.raises(SystemExit, match="https://"):
        WebAuthn(origin)
