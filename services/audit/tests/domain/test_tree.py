"""The tree of RFC 6962 against another implementation of its definition, written as the RFC writes it."""

from __future__ import annotations

import hashlib

import pytest
from authpipe_audit.domain.checkpoints import signed_note
from authpipe_audit.domain.tree import Frontier, commitment, leaf_hash
from hypothesis import given
from hypothesis import strategies as st


def root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, to the letter."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = root_by_definition(leaves[:split]), root_by_definition(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@pytest.mark.promise("P31")
@given(leaves=st.lists(st.binary(max_size=40), max_size=70))
def test_the_frontier_has_the_root_of_the_definition(leaves: list[bytes]) -> None:
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf_hash(leaf))
    assert frontier.root() == root_by_definition(leaves)
    assert Frontier(frontier.size, frontier.roots).root() == frontier.root()


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


def test_a_commitment_hides_its_event_behind_the_salt() -> None:
    assert commitment(bytes(32), b"event") != commitment(b"\x01" * 32, b"event")


def test_a_checkpoint_is_a_signed_note() -> None:
    note = signed_note("example.com/log", 3, bytes(32), bytes(32), bytes(64))
    body, _, signature = note.partition("\n\n")
    assert body == "example.com/log\n3\n" + "A" * 43 + "="
    assert signature.startswith("— example.com/log ")
    assert signature.endswith("\n")
