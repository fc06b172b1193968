"""The worker's streams that stand: kept while one worker says that it is there, and left for another one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from authpipe.oauth.v1 import worker_pb2
from authpipe_envelope import RecordClass
from authpipe_grants import thumbprint
from authpipe_oauth_coordinator.domain.words import Acting
from authpipe_oauth_coordinator.peers import WorkerPeer
from authpipe_rpc import PeerRefused
from authpipe_sensitive import Status

ACTING = Acting("ws", "service:oauth/coordinator", "req")
ONE, OTHER = bytes([1] * 32), bytes([2] * 32)


class Wire:
    """Workers at the wire: `tells` its key whoever is asked for it, `leads_to` another one a stream that stands."""

    def __init__(self) -> None:
        self.tells = self.leads_to = ONE
        self.left = 0
        self.asked = 0

    def leave_streams(self) -> None:
        self.left += 1
        self.leads_to = self.tells

    async def call_idempotent(self, _: object, __: worker_pb2.GetConsumerKeyRequest) -> Any:
        await asyncio.sleep(0)
        self.asked += 1
        return worker_pb2.GetConsumerKeyResponse(public_key=self.tells)

    async def call(self, _: object, request: worker_pb2.ResealRequest) -> Any:
        if request.consumer_thumbprint != thumbprint(self.leads_to):
            raise PeerRefused("CONSUMER_KEY_CHANGED", Status.FAILED_PRECONDITION)
        return worker_pb2.ResealResponse(resealed_count=1)


class Grants:
    """Signs nothing."""

    def for_reseal(self, *_: Any) -> str:
        """Gives a grant."""
        return "grant"


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def worker(wire: Wire) -> WorkerPeer:
    made: Any = WorkerPeer
    return made(wire, Grants())  # type: ignore[no-any-return]


async def work(worker: WorkerPeer) -> int:
    return await worker.reseal(ACTING, "con", [RecordClass.ACCESS], 1)


async def test_a_worker_that_says_again_and_again_that_it_is_there_keeps_its_streams(
    worker: WorkerPeer, wire: Wire
) -> None:
    await worker.require_reachable()
    left = wire.left
    for _ in range(5):
        await asyncio.gather(*(worker.require_reachable() for _ in range(20)))
        assert await work(worker) == 1
    assert (wire.left, wire.asked) == (left, 6)


async def test_streams_are_left_for_a_worker_with_another_key(worker: WorkerPeer, wire: Wire) -> None:
    assert await work(worker) == 1
    left = wire.left
    wire.tells = OTHER
    await worker.require_reachable()
    assert wire.left == left + 1
    assert await work(worker) == 1


async def test_streams_that_lead_to_another_worker_than_the_one_that_told_its_key_are_left(
    worker: WorkerPeer, wire: Wire
) -> None:
    assert await work(worker) == 1
    wire.leads_to = OTHER
    assert await work(worker) == 1, "the key that is told is the one that is known: only the refusal says otherwise"
    assert wire.leads_to == ONE
