"""edge's certificate in an attacker's hand, with an API key of his own workspace: the one act reaches nobody else (promise P27).

What he may do with it is what passes through edge at that time. He has no key of the victim's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from authpipe_rpc import Peer, PeerConfig, PeerRefused  # first: it sets grpc's cipher list
import pytest
from authpipe.authority.v1 import authority_pb2, authority_pb2_grpc
from authpipe.oauth.v1 import coordinator_pb2, coordinator_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_grants import ConsumerKey
from authpipe_testing.customer import Customer

ROTATE, REVOKE, FREEZE = (
    authority_pb2.ACT_ROTATE,
    authority_pb2.ACT_REVOKE_API_KEYS,
    authority_pb2.ACT_FREEZE,
)


class TakenOverEdge:
    """Has edge's certificate."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def call(self, server: str, stub: Any, method: str, request: Any) -> Any:
        """Calls a process; gives its answer, or the reason of its refusal."""
        name = {"authority": "gateway/authority", "coordinator": "oauth/coordinator"}[server]
        peer: Peer[Any] = Peer(
            PeerConfig(name=name, address=self._stack.layout.address(server)), self._stack.files("edge"), stub
        )
        try:
            return await peer.call(lambda each: getattr(each, method), request)
        except PeerRefused as refused:
            return refused.reason
        finally:
            await peer.close()

    async def grant(self, customer: Customer, act: Any) -> str:
        """Has a grant signed for an act with a customer's API key."""
        api_key = str(customer.http.headers["authorization"]).removeprefix("Bearer ").encode()
        item = authority_pb2.ActRequest(api_key=api_key, act=act, request_id="req_attack")
        request = authority_pb2.AuthorizeRequest(consumer_public_key=ConsumerKey().public, items=[item])
        answer = await self.call("authority", authority_pb2_grpc.AuthorityStub, "Authorize", request)
        return str(answer.items[0].manage_grant)

    async def rotate(self, **asked: Any) -> Any:
        """Asks for a rotation."""
        request = coordinator_pb2.BeginRotationRequest(request_id="req_attack", dry_run=True, **asked)
        return await self.call("coordinator", coordinator_pb2_grpc.ContainmentStub, "BeginRotation", request)

    async def contain(self, method: str, **asked: Any) -> Any:
        """Asks authority to revoke or freeze."""
        kind = getattr(authority_pb2, f"{method}Request")
        request = kind(request_id="req_attack", dry_run=True, **asked)
        return await self.call("authority", authority_pb2_grpc.AuthorityStub, method, request)


@pytest.mark.case(16)
@pytest.mark.promise("P27")
def test_an_edge_that_was_taken_over_contains_nobody_whose_key_it_has_not(
    stack: Stack, new_customer: Callable[..., Customer], superuser: Any
) -> None:
    victim, attacker = new_customer(), new_customer()
    config = str(victim.configure(stack.layout.playground_issuer)["id"])
    connection = victim.connect(config)
    with superuser("core", "coordinator") as core:
        row = core.execute("select workspace_id from connections where id = %s", (connection,)).fetchone()
    theirs = str(row[0])

    async def attack() -> None:
        edge = TakenOverEdge(stack)
        grant = await edge.grant(attacker, ROTATE)
        # With a grant of his own workspace it is his own that is meant, whatever else the request says.
        assert (await edge.rotate(grant=grant)).rotation.total_count == 0
        assert (await edge.rotate(grant=grant, workspace_id=theirs)).rotation.total_count == 0
        assert await edge.rotate(grant=grant, everything=True) == "REQUEST_MALFORMED"
        assert await edge.rotate(grant=grant, connection_id=connection) == "NOT_FOUND"
        assert await edge.rotate(grant=grant, provider_config_id=config) == "NOT_FOUND"
        # Without one, or with one for another act, nothing is.
        other = await edge.grant(attacker, FREEZE)
        for refused in (
            await edge.rotate(workspace_id=theirs),
            await edge.rotate(everything=True),
            await edge.rotate(grant=other),
            await edge.contain("FreezeWorkspace", workspace_id=theirs),
            await edge.contain("FreezeWorkspace", workspace_id=theirs, grant=grant),
            await edge.contain("RevokeApiKeys", workspace_id=theirs),
            await edge.contain("RevokeApiKeys", workspace_id=theirs, grant=other),
        ):
            assert refused == "GRANT_REFUSED"
        assert (
            await edge.contain("RevokeApiKeys", workspace_id=theirs, grant=await edge.grant(attacker, REVOKE))
        ).revoked_count == 1

    asyncio.run(attack())
    assert victim.token(connection).status_code == 200
