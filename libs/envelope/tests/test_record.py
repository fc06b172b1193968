"""AP1: whatever is changed, one and the same error; whatever is bound, it opens nowhere else."""

from __future__ import annotations

import inspect
import json
import os
import re
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from authpipe_envelope import context as context_module
from authpipe_envelope import (
    HEADER_SIZE,
    Context,
    ContextError,
    Header,
    IntegrityError,
    RecordKey,
    derive_record_key,
    hosts_digest,
    new_salt,
    open_record,
    seal_record,
)
from authpipe_sensitive import Secret
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, given
from hypothesis import strategies as st

CONTEXT = Context("d", "eu", "user-credentials", "ws_a", "con_a", 1, 3, "acme", hosts_digest(["api.acme.example"]))
CK = bytes(range(32))
SALT = bytes(32)


def key(ck: bytes = CK, salt: bytes = SALT, record_class: int = 1) -> RecordKey:
    return derive_record_key(Secret(ck), 1, salt, record_class)


RECORD = seal_record(key(), CONTEXT, b"the credential")


def test_a_record_opens_where_it_was_sealed() -> None:
    assert open_record(key(), CONTEXT, RECORD) == Secret(b"the credential")


def test_the_format_is_as_documented_byte_by_byte() -> None:
    assert RECORD[:8] == b"AP\x01\x01\x00\x00\x00\x01"
    assert RECORD[8:40] == SALT
    assert len(RECORD) == 72 + 64 + 16
    # Fixed by this key, salt and context: a change of the format changes this, and has to have a new number.
    assert RECORD[40:72].hex() == COMMITMENT
    assert RECORD[72:].hex() == CIPHERTEXT


COMMITMENT = "07d1fd598adb38be71ef9633c514915c32a2d7b10ef98d40ff9e89555064d5a9"
CIPHERTEXT = "b2a160244641bbe8725bdab34bad72d67069daccbe984ad1490e5d302c2357f72b948a7705af26d8c70b5cff28f9ff871b7ecd9862c7b1a83b8f0c9699c4b52fa09f675f0cf75d64c3773393b5c774ff"


@pytest.mark.promise("P01")
@pytest.mark.case(3)
def test_every_byte_flipped_is_one_and_the_same_error() -> None:
    for position in range(len(RECORD)):
        for bit in (1, 0x80):
            changed = bytearray(RECORD)
            changed[position] ^= bit
            with pytest.raises(IntegrityError):
                open_record(key(), CONTEXT, bytes(changed))


@pytest.mark.promise("P01")
@pytest.mark.case(3)
def test_every_length_cut_or_added_is_one_and_the_same_error() -> None:
    for length in range(len(RECORD)):
        with pytest.raises(IntegrityError):
            open_record(key(), CONTEXT, RECORD[:length])
    for more in (1, 16, 64):
        with pytest.raises(IntegrityError):
            open_record(key(), CONTEXT, RECORD + bytes(more))


@pytest.mark.case(4)
@pytest.mark.parametrize(
    "head", [b"AP\x00\x01", b"AP\x02\x01", b"AP\x01\x00", b"AP\x01\x02", b"ap\x01\x01", b"\x00\x00\x00\x00"]
)
def test_an_unknown_or_older_format_or_suite_is_refused(head: bytes) -> None:
    with pytest.raises(IntegrityError):
        open_record(key(), CONTEXT, head + RECORD[4:])


@pytest.mark.promise("P01")
@pytest.mark.promise("P05")
@pytest.mark.case(1)
@pytest.mark.parametrize(
    "other",
    [
        {"workspace": "ws_b"},
        {"connection": "con_b"},
        {"record_class": 2},
        {"version": 2},
        {"version": 4},
        {"provider": "acme2"},
        {"key_domain": "client-secrets"},
        {"region": "us"},
        {"deployment": "e"},
        {"hosts": hosts_digest(["evil.example"])},
    ],
)
def test_a_record_moved_anywhere_else_does_not_open(other: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        open_record(key(), CONTEXT._replace(**other), RECORD)  # type: ignore[arg-type]


@pytest.mark.promise("P01")
def test_a_key_of_another_connection_class_or_salt_does_not_open() -> None:
    for other in (key(ck=bytes(32)), key(salt=new_salt()), key(record_class=2)):
        with pytest.raises(IntegrityError):
            open_record(other, CONTEXT, RECORD)


def test_a_write_key_seals_once() -> None:
    write = key()
    seal_record(write, CONTEXT, b"first")
    with pytest.raises(ValueError, match="one record"):
        seal_record(write, CONTEXT, b"second")


@given(plaintext=st.binary(max_size=300))
def test_any_plaintext_comes_back_and_its_length_shows_in_steps_of_64(plaintext: bytes) -> None:
    ck, salt = os.urandom(32), new_salt()
    record = seal_record(key(ck, salt), CONTEXT, plaintext)
    assert (len(record) - HEADER_SIZE - 16) % 64 == 0
    assert open_record(key(ck, salt), CONTEXT, record) == Secret(plaintext)


TEXT = st.text(min_size=1, max_size=20)


@pytest.mark.case(5)
@given(first=st.tuples(TEXT, TEXT, TEXT), second=st.tuples(TEXT, TEXT, TEXT))
def test_two_contexts_have_the_same_bytes_only_if_they_are_the_same(
    first: tuple[str, str, str], second: tuple[str, str, str]
) -> None:
    encoded = []
    for workspace, connection, provider in (first, second):
        try:
            context = CONTEXT._replace(workspace=workspace, connection=connection, provider=provider)
            encoded.append(context.encode())
        except ContextError:
            return
    assert (encoded[0] == encoded[1]) == (first == second)


@pytest.mark.case(5)
@pytest.mark.parametrize("text", ["", "a\x00b", "a\nb", "e\u0301", "x" * 256, "\ud800"])
def test_text_that_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises((ContextError, UnicodeEncodeError)):
        CONTEXT._replace(workspace=text).encode()


@pytest.mark.case(5)
@given(parts=st.lists(st.text("a|", min_size=1, max_size=4), min_size=3, max_size=3))
def test_fields_that_hold_a_separator_are_not_mixed_up(parts: list[str]) -> None:
    a, b, c = parts
    one = CONTEXT._replace(workspace=f"{a}|{b}", connection=c)
    two = CONTEXT._replace(workspace=a, connection=f"{b}|{c}")
    assert one != two
    assert one.encode() != two.encode()


@pytest.mark.case(5)
def test_a_boundary_between_fields_cannot_be_moved() -> None:
    one = CONTEXT._replace(workspace="ab", connection="c").encode()
    two = CONTEXT._replace(workspace="a", connection="bc").encode()
    assert one != two
    assert hosts_digest(["ab", "c"]) != hosts_digest(["a", "bc"])
    assert hosts_digest(["A.example", "b"]) == hosts_digest(["b", "a.example", "b"])


@pytest.mark.case(5)
@pytest.mark.parametrize(
    ("old", "new", "attack"),
    [
        ('struct.pack(">BI", tag, len(value)) + value', "value", test_a_boundary_between_fields_cannot_be_moved),
        (
            'struct.pack(">BI", tag, len(value)) + value',
            'value + b"|"',
            test_fields_that_hold_a_separator_are_not_mixed_up,
        ),
    ],
    ids=["fields run together", "fields end with a sign that may stand in them"],
)
def test_the_attacks_see_a_context_without_lengths(
    old: str, new: str, attack: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = textwrap.dedent(inspect.getsource(Context.encode))
    assert old in source, "the control is not written like this any more: mend the mutant"
    namespace = dict(vars(context_module))
    # The mutant takes every text: what is refused elsewhere would hide what is missing here.
    namespace["_text"] = lambda value: value.encode("utf-8", "surrogatepass")
    exec(source.replace(old, new), namespace)  # our own source, changed
    monkeypatch.setattr(Context, "encode", namespace["encode"])
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        attack()


# Vectors from outside: made from the document by a script that imports nothing of ours.
VECTORS = json.loads((Path(__file__).resolve().parents[3] / "tests" / "vectors" / "ap1.json").read_text())


def vector_key(vector: dict[str, Any]) -> RecordKey:
    """Gives the record key of a vector."""
    header = Header.parse(bytes.fromhex(vector["record"])[:HEADER_SIZE])
    ck = Secret(bytes.fromhex(vector["connection_key"]))
    return derive_record_key(ck, header.key_version, header.salt, vector["class"])


def vector_context(vector: dict[str, Any]) -> Context:
    """Gives the context of a vector."""
    return Context(
        deployment=vector["deployment"],
        region=vector["region"],
        key_domain=vector["key_domain"],
        workspace=vector["workspace"],
        connection=vector["connection"],
        record_class=vector["class"],
        version=vector["version"],
        provider=vector["provider"],
        hosts=hosts_digest(vector["hosts"]),
    )


@pytest.mark.promise("P01")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_from_outside_opens_and_is_sealed_to_the_same_bytes(vector: dict[str, Any]) -> None:
    record, context = bytes.fromhex(vector["record"]), vector_context(vector)
    assert context.encode().hex() == vector["context"]
    assert open_record(vector_key(vector), context, record) == Secret(bytes.fromhex(vector["plaintext"]))
    assert seal_record(vector_key(vector), context, bytes.fromhex(vector["plaintext"])) == record


def test_the_vectors_are_what_their_script_makes() -> None:
    folder = Path(__file__).resolve().parents[3] / "tests" / "vectors"
    made = subprocess.run([sys.executable, folder / "make_ap1.py"], capture_output=True, text=True, check=True).stdout
    assert made == (folder / "ap1.json").read_text()
    imported = re.findall(r"(?m)^(?:from|import) ([a-z]+)", (folder / "make_ap1.py").read_text())
    assert not [name for name in imported if name.startswith("authpipe")]


PARTS = (slice(0, 8), slice(8, 40), slice(40, 72), slice(72, -16), slice(-16, None))


@pytest.mark.promise("P01")
@pytest.mark.case(3)
@given(data=st.data())
def test_any_change_truncation_or_swap_of_parts_is_refused_with_the_same_error(data: st.DataObject) -> None:
    first, second = (data.draw(st.sampled_from(VECTORS)) for _ in range(2))
    records = [bytes.fromhex(each["record"]) for each in (first, second)]
    parts = [records[0][part] for part in PARTS]
    match data.draw(st.sampled_from(["change", "cut", "add", "swap", "another's part"])):
        case "change":
            index = data.draw(st.integers(0, len(records[0]) - 1))
            value = bytearray(records[0])
            value[index] ^= data.draw(st.integers(1, 255))
            changed = bytes(value)
        case "cut":
            changed = records[0][: data.draw(st.integers(0, len(records[0]) - 1))]
        case "add":
            changed = records[0] + data.draw(st.binary(min_size=1, max_size=80))
        case "swap":
            changed = b"".join(data.draw(st.permutations(parts)))
        case _:
            index = data.draw(st.integers(0, len(PARTS) - 1))
            parts[index] = records[1][PARTS[index]]
            changed = b"".join(parts)
    assume(changed != records[0])
    with pytest.raises(IntegrityError) as refused:
        open_record(vector_key(first), vector_context(first), changed)
    # One class, one text, no detail, no cause: nothing tells which check it was.
    assert type(refused.value) is IntegrityError
    assert (str(refused.value), refused.value.metadata) == (str(IntegrityError()), {})
    assert refused.value.__cause__ is None


def multiply(a: int, b: int) -> int:
    """Multiplies in GCM's field (NIST SP 800-38D, section 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (0xE1 << 120 if b & 1 else 0)
    return product


def power(a: int, exponent: int) -> int:
    result = 1 << 127  # one
    while exponent:
        if exponent & 1:
            result = multiply(result, a)
        a = multiply(a, a)
        exponent >>= 1
    return result


def block(key: bytes, value: bytes) -> bytes:
    """Encrypts one block."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(value)  # noqa: S305  # one block, to make the attack


def ghash(key: bytes, aad: bytes, ciphertext: bytes) -> int:
    h, total = int.from_bytes(block(key, bytes(16)), "big"), 0
    padded = b"".join(part + bytes(-len(part) % 16) for part in (aad, ciphertext))
    padded += struct.pack(">QQ", 8 * len(aad), 8 * len(ciphertext))
    for at in range(0, len(padded), 16):
        total = multiply(total ^ int.from_bytes(padded[at : at + 16], "big"), h)
    return total


@pytest.mark.promise("P01")
def test_one_ciphertext_that_opens_under_two_keys_is_refused_by_the_commitment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AES-GCM commits to no key: a block can be chosen so that the tag is right under two (the partitioning oracle)."""

    def stream(key: RecordKey) -> bytes:
        material = key.material.expose()
        return AESGCM(bytes(material[:32])).encrypt(bytes(material[32:44]), bytes(64), b"")[:64]

    # Two keys whose streams end alike, so that the padding, too, is right under both.
    honest = derive_record_key(Secret(CK), 1, SALT, 1)
    number = 0
    while True:
        number += 1
        other = derive_record_key(Secret(number.to_bytes(32, "big")), 1, SALT, 1)
        if stream(other)[-1] == stream(honest)[-1]:
            break
    materials = [bytes(each.material.expose()) for each in (honest, other)]
    header = RECORD[:40] + materials[0][44:]
    aad = header + CONTEXT.encode()
    ciphertext = bytearray(64)
    ciphertext[-1] = stream(honest)[-1] ^ 0x80
    # The tag under both keys with the first block at zero, and what that block adds to each.
    sums = [
        ghash(each[:32], aad, bytes(ciphertext)) ^ int.from_bytes(block(each[:32], each[32:44] + b"\0\0\0\1"), "big")
        for each in materials
    ]
    weights = [power(int.from_bytes(block(each[:32], bytes(16)), "big"), 5) for each in materials]
    chosen = multiply(sums[0] ^ sums[1], power(weights[0] ^ weights[1], 2**128 - 2))
    ciphertext[:16] = chosen.to_bytes(16, "big")
    tag = (sums[0] ^ multiply(chosen, weights[0])).to_bytes(16, "big")
    for each in materials:  # the attack is real: both open it
        AESGCM(each[:32]).decrypt(each[32:44], bytes(ciphertext) + tag, aad)
    forged = header + bytes(ciphertext) + tag
    open_record(honest, CONTEXT, forged)
    with pytest.raises(IntegrityError):
        open_record(other, CONTEXT, forged)
    # And it is the commitment that sees it: without, the second key opens it too.
    again = derive_record_key(Secret(number.to_bytes(32, "big")), 1, SALT, 1)  # a key opens one record
    monkeypatch.setattr(RecordKey, "commits_to", lambda *_: True)
    open_record(again, CONTEXT, forged)
