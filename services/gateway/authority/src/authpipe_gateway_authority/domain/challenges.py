"""Challenges for passkeys: random, good for five minutes, for one purpose, used once.

Whoever began is not remembered: a challenge carries its own time under our MAC, and is written down when it is used.

    nonce     16 bytes, random         until    8 bytes, seconds of Unix time, big-endian
    mac       32 bytes, over the purpose, the nonce and the time
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NamedTuple

from authpipe_gateway_authority.domain.row_mac import row_mac
from authpipe_gateway_authority.errors import SignInError
from authpipe_sensitive import Secret

_NONCE, _TIME, _MAC = 16, 8, 32
_LIFE_SECONDS = 300


class Spent(NamedTuple):
    """A challenge that is being used.

    Args:
        nonce: What it is known by, 16 bytes.
        until: Until when it must be remembered, seconds of Unix time.
    """

    nonce: bytes
    until: int


class Challenges:
    """Makes and checks challenges.

    Args:
        mac_key: The key of the MAC.
        randomness: Gives random bytes.
        clock: Gives seconds.
    """

    def __init__(self, mac_key: Secret, randomness: Callable[[int], bytes], clock: Callable[[], float]) -> None:
        self._mac_key = mac_key
        self._randomness = randomness
        self._clock = clock

    def make(self, purpose: str) -> bytes:
        """Makes a challenge, 56 bytes."""
        nonce = self._randomness(_NONCE)
        until = int(self._clock()) + _LIFE_SECONDS
        return nonce + until.to_bytes(_TIME, "big") + self._mac(purpose, nonce, until)

    def check(self, challenge: bytes, purpose: str) -> Spent:
        """Gives what is to be written down of a challenge that came back.

        Raises:
            SignInError: It is none of ours, for another purpose, or too old.
        """
        if len(challenge) != _NONCE + _TIME + _MAC:
            raise SignInError("CHALLENGE_FORGED")
        nonce, until = challenge[:_NONCE], int.from_bytes(challenge[_NONCE : _NONCE + _TIME], "big")
        if not hmac.compare_digest(challenge[_NONCE + _TIME :], self._mac(purpose, nonce, until)):
            raise SignInError("CHALLENGE_FORGED")
        if self._clock() >= until:
            raise SignInError("CHALLENGE_EXPIRED")
        return Spent(nonce, until)

    def _mac(self, purpose: str, nonce: bytes, until: int) -> bytes:
        return row_mac(self._mac_key, "challenges", (purpose, nonce.hex(), str(until)))
