"""Trees and proofs against the definitions of RFC 6962, written as the RFC writes them, and its own vectors."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from authpipe_transparency import (
    EMPTY_ROOT,
    Frontier,
    ProofError,
    Range,
    consistency_ranges,
    fold,
    full_subtrees,
    inclusion_ranges,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from hypothesis import given
from hypothesis import strategies as st

ENTRIES = [bytes([number]) * (number % 7) for number in range(140)]
HASHES = [leaf_hash(entry) for entry in ENTRIES]


def mth(entries: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, to the letter."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1 << ((len(entries) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + mth(entries[:split]) + mth(entries[split:])).digest()


def path(index: int, entries: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1, to the letter."""
    if len(entries) == 1:
        return []
    split = 1 << ((len(entries) - 1).bit_length() - 1)
    if index < split:
        return [*path(index, entries[:split]), mth(entries[split:])]
    return [*path(index - split, entries[split:]), mth(entries[:split])]


def subproof(old: int, entries: list[bytes], *, complete: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2, to the letter."""
    if old == len(entries):
        return [] if complete else [mth(entries)]
    split = 1 << ((len(entries) - 1).bit_length() - 1)
    if old <= split:
        return [*subproof(old, entries[:split], complete=complete), mth(entries[split:])]
    return [*subproof(old - split, entries[split:], complete=False), mth(entries[:split])]


def hash_of(part: Range) -> bytes:
    """Gives the root of a subtree, by way of its full ones."""
    return fold([mth(ENTRIES[full.start : full.end]) for full in full_subtrees(part)])


sizes = st.integers(1, len(ENTRIES))


@pytest.mark.promise("P31")
@given(size=st.integers(0, len(ENTRIES)))
def test_the_frontier_has_the_root_of_the_definition(size: int) -> None:
    frontier = Frontier()
    for hashed in HASHES[:size]:
        frontier.append(hashed)
    assert frontier.root() == mth(ENTRIES[:size])
    assert Frontier(frontier.size, frontier.roots).root() == frontier.root()
    assert root_of(HASHES[:size]) == frontier.root()


@pytest.mark.promise("P31")
@given(cuts=st.lists(st.integers(0, len(ENTRIES)), max_size=6))
def test_leaves_that_come_many_at_once_are_the_same_tree(cuts: list[int]) -> None:
    frontier = Frontier()
    for start, end in pairwise([0, *sorted(cuts), len(ENTRIES)]):
        frontier.extend(b"".join(HASHES[start:end]))
        assert (frontier.size, frontier.root()) == (end, mth(ENTRIES[:end]))


def test_known_roots_of_the_certificate_transparency_test_vectors() -> None:
    """The eight leaves and roots that Certificate Transparency's own tests use."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    frontier = Frontier()
    for number, leaf in enumerate(leaves, 1):
        frontier.append(leaf_hash(bytes.fromhex(leaf)))
        if number in roots:
            assert frontier.root().hex() == roots[number]


@pytest.mark.promise("P31")
@given(size=sizes, data=st.data())
def test_an_audit_path_is_that_of_the_definition_and_proves_its_leaf_and_no_other(
    size: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = [hash_of(part) for part in inclusion_ranges(index, size)]
    root = mth(ENTRIES[:size])
    assert proof == path(index, ENTRIES[:size])
    verify_inclusion(index, size, HASHES[index], proof, root)
    for wrong in ((index + 1, size, proof), (index, size, [*proof, root]), (index, size, proof[:-1])):
        if (wrong[0], wrong[2]) != (index, proof):
            with pytest.raises(ProofError):
                verify_inclusion(wrong[0], wrong[1], HASHES[index], wrong[2], root)
    with pytest.raises(ProofError):
        verify_inclusion(index, size, leaf_hash(b"another event"), proof, root)


@pytest.mark.promise("P31")
@given(size=st.integers(0, len(ENTRIES)), data=st.data())
def test_a_consistency_proof_is_that_of_the_definition_and_refuses_another_past(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(0, size))
    proof = [hash_of(part) for part in consistency_ranges(old, size)]
    root, old_root = mth(ENTRIES[:size]), mth(ENTRIES[:old])
    if 0 < old < size:
        assert proof == subproof(old, ENTRIES[:size], complete=True)
    verify_consistency(old, old_root, size, root, proof)
    with pytest.raises(ProofError):
        verify_consistency(old, leaf_hash(b"rewritten"), size, root, proof)
    with pytest.raises(ProofError):
        verify_consistency(old, old_root, size, root, [*proof, root])
    if old:
        with pytest.raises(ProofError):
            verify_consistency(size + 1, old_root, size, root, proof)
        rewritten = mth([b"rewritten", *ENTRIES[1:size]])
        if rewritten != root:
            with pytest.raises(ProofError):
                verify_consistency(old, old_root, size, rewritten, proof)


def test_nothing_is_proved_of_what_a_tree_does_not_have() -> None:
    for bad in (-1, 3):
        with pytest.raises(ValueError, match="no such leaf"):
            inclusion_ranges(bad, 3)
    with pytest.raises(ValueError, match="larger"):
        consistency_ranges(4, 3)
    with pytest.raises(ValueError, match="one root per bit"):
        Frontier(3, [EMPTY_ROOT])
