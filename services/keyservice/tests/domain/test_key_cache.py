"""Unwrapped keys in memory: what was overwritten is handed out to nobody."""

from __future__ import annotations

import asyncio
import time

from authpipe_keyservice.domain.keys import Held, KeyCache
from authpipe_sensitive import Secret

NAME = ("ws_1", b"wrapped")


async def test_a_key_forgotten_between_its_unwrapping_and_whoever_waits_for_it_is_unwrapped_again() -> None:
    cache = KeyCache(time.monotonic, 300)
    unwrapped = 0

    async def unwrap() -> Held:
        nonlocal unwrapped
        unwrapped += 1
        if unwrapped == 1:
            # Another replica's word comes in the very turn in which the key is there and nobody has woken yet.
            asyncio.get_running_loop().call_soon(cache.forget, "ws_1", "")
        return Held(Secret(bytes(32)))

    found = await asyncio.gather(*(cache.get_or_unwrap(NAME, unwrap) for _ in range(5)))
    assert [len(held.key) for held in found] == [32] * 5
    assert unwrapped == 2
