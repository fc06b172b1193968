"""A challenge is good for five minutes, for one purpose, and cannot be made by anybody else."""

from __future__ import annotations

import os

import pytest
from authpipe_gateway_authority.domain.challenges import Challenges
from authpipe_gateway_authority.errors import SignInError
from authpipe_sensitive import Secret
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_900_000_000


def challenges(now: float = NOW, key: bytes = b"k" * 32) -> Challenges:
    return Challenges(Secret(key), os.urandom, lambda: now)


def test_a_challenge_comes_back_for_its_purpose_within_five_minutes() -> None:
    challenge = challenges().make("sign in")
    spent = challenges(NOW + 299).check(challenge, "sign in")
    assert (len(spent.nonce), spent.until) == (16, NOW + 300)
    for now, purpose, key in ((NOW + 300, "sign in", b"k"), (NOW, "join mem_1", b"k"), (NOW, "sign in", b"l")):
        with pytest.raises(SignInError):
            challenges(now, key * 32).check(challenge, purpose)


@given(st.integers(0, 55), st.integers(1, 255))
def test_a_challenge_with_one_byte_changed_is_refused(place: int, bits: int) -> None:
    challenge = bytearray(challenges().make("sign in"))
    challenge[place] ^= bits
    with pytest.raises(SignInError):
        challenges().check(bytes(challenge), "sign in")


@given(st.binary(max_size=80))
def test_a_challenge_of_somebodys_own_is_refused(challenge: bytes) -> None:
    with pytest.raises(SignInError):
        challenges().check(challenge, "sign in")
