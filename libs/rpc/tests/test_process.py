"""Work beside serving: one that fails ends the process, and says so."""

from __future__ import annotations

import asyncio

import pytest
from authpipe_rpc import Background


async def test_work_that_fails_stops_the_process_with_an_error() -> None:
    stop = asyncio.Event()
    beside = Background(stop)

    async def fails() -> None:
        raise ValueError

    async def goes_on() -> None:
        await stop.wait()

    beside.add("goes on", goes_on())
    beside.add("fails", fails())
    async with asyncio.timeout(1):
        await stop.wait()
        with pytest.raises(SystemExit):
            await beside.finish()


async def test_work_that_ends_when_told_to_is_no_error() -> None:
    stop = asyncio.Event()
    beside = Background(stop)

    async def goes_on() -> None:
        await stop.wait()

    beside.add("goes on", goes_on())
    stop.set()
    async with asyncio.timeout(1):
        await beside.finish()
