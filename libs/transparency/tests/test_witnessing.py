"""When a witness cosigns: a tree that is proved to extend the last, of a log it knows, signed by it; and nothing else."""

from __future__ import annotations

import pytest
from authpipe_transparency import (
    LOG_KEY,
    Checkpoint,
    FormatError,
    Note,
    SignatureLine,
    VerifierKey,
    consistency_ranges,
    leaf_hash,
    root_of,
)
from authpipe_transparency.witnessing import AddCheckpoint, WitnessRefusal, checkpoint_of, require_extension
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

# The example of C2SP tlog-witness.
EXAMPLE = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""
KEY = Ed25519PrivateKey.generate()
VKEY = VerifierKey("example.com/log", LOG_KEY, KEY.public_key().public_bytes_raw())
LEAVES = [leaf_hash(bytes([number])) for number in range(30)]
FORKED = [*LEAVES[:6], *(leaf_hash(b"other") for _ in range(24))]


def asking(size: int, old: int, leaves: list[bytes] = LEAVES, key: Ed25519PrivateKey = KEY) -> AddCheckpoint:
    checkpoint = Checkpoint(VKEY.name, size, root_of(leaves[:size]))
    line = SignatureLine(VKEY.name, VKEY.key_id, key.sign(checkpoint.text.encode()))
    parts = consistency_ranges(old, size) if old <= size else []
    proof = [root_of(leaves[part.start : part.end]) for part in parts]
    return AddCheckpoint(old, proof, str(Note(checkpoint.text, (line,))))


def judged(asked: AddCheckpoint, cosigned: Checkpoint | None) -> Checkpoint:
    checkpoint = checkpoint_of(asked, {VKEY.name: VKEY})
    require_extension(asked, checkpoint, cosigned)
    return checkpoint


def test_the_example_of_the_specification_is_read_and_written_back() -> None:
    asked = AddCheckpoint.parse(EXAMPLE)
    assert (asked.old_size, len(asked.proof)) == (20852014, 4)
    assert asked.encode() == EXAMPLE


@pytest.mark.promise("P31")
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_a_tree_that_grows_is_cosigned_and_one_that_shrinks_is_not(sizes: list[int]) -> None:
    cosigned: Checkpoint | None = None
    for size in sizes:
        old = cosigned.size if cosigned else 0
        if size < old:
            with pytest.raises(WitnessRefusal) as refused:
                judged(asking(size, old), cosigned)
            assert refused.value.status == 400
        else:
            cosigned = judged(asking(size, old), cosigned)


@pytest.mark.case(29)
@pytest.mark.promise("P31")
@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (asking(12, 10, FORKED), 422),  # another past
        (asking(10, 10, FORKED), 409),  # another tree of the same size
        (asking(12, 9), 409),  # a proof from another tree than the last
        (asking(12, 0), 409),
        (asking(12, 10, key=Ed25519PrivateKey.generate()), 403),
        (AddCheckpoint(10, [], asking(12, 10).note), 422),
        (AddCheckpoint(13, [], asking(12, 10).note), 400),
        (AddCheckpoint(10, [], asking(12, 10).note.replace("example.com/log", "example.com/other")), 404),
        (AddCheckpoint(10, [], "nothing"), 400),
    ],
)
def test_what_a_witness_does_not_cosign(asked: AddCheckpoint, status: int) -> None:
    cosigned = judged(asking(10, 0), None)
    with pytest.raises(WitnessRefusal) as refused:
        judged(asked, cosigned)
    assert refused.value.status == status
    if status == 409:
        assert refused.value.size == 10


@pytest.mark.parametrize(
    "body",
    [
        "",
        "old\n\nx",
        "old -1\n\nx",
        "old 01\n\nx",
        "old 1\nx\n\nx",
        f"old 1\n{'AAAA' * 3}\n\nx",
        "old 1\n" + "A\n" * 64 + "\nx",
    ],
)
def test_a_request_that_is_none_is_not_read(body: str) -> None:
    with pytest.raises(FormatError):
        AddCheckpoint.parse(body)
