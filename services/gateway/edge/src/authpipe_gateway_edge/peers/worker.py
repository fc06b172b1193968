"""The worker, in edge's own words: what is done with a credential that never comes here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing


from authpipe.oauth.v1 import coordinator_pb2 as pb
from authpipe.oauth.v1 import types_pb2, worker_pb2, worker_pb2_grpc
from authpipe_gateway_edge.domain.proxying import Answered, Asked, Body
from authpipe_gateway_edge.domain.words import Arrived, Provable, ProxyRoute, Verdict, WebhookScheme
from authpipe_grants import thumbprint
from authpipe_rpc import Peer
from authpipe_sensitive import Secret

_LONGEST_PROXY_SECONDS = 870.0


class WorkerPeer:
    """The worker, for the proxy.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[worker_pb2_grpc.WorkerAsyncStub]) -> None:
        self._peer = peer
        self._thumbprint = ""

    async def thumbprint(self, *, anew: bool) -> str:
        """Gives the thumbprint of its HPKE key, which it makes anew when it starts."""
        if anew or not self._thumbprint:
            self._peer.leave_streams()
            request = worker_pb2.GetConsumerKeyRequest()
            response = await self._peer.call_idempotent(lambda stub: stub.GetConsumerKey, request)
            self._thumbprint = thumbprint(response.public_key)
        return self._thumbprint

    async def verify_webhook(
        self,
        verdict: Verdict,
        connection_id: str,
        scheme: WebhookScheme,
        arrived: Arrived,
        request_id: str,
        thumbprint: str,
    ) -> str:
        """Says why what came is not believed; empty: it is."""
        request = worker_pb2.VerifyWebhookRequest(
            workspace_id=verdict.workspace,
            connection_id=connection_id,
            credential_grant=verdict.record_grant,
            consumer_thumbprint=thumbprint,
            request_id=request_id,
            scheme=types_pb2.WebhookScheme(**scheme._asdict()),
            headers=[
                worker_pb2.Header(name=name.lower(), value=value.encode("latin-1", "replace"))
                for name, value in arrived.headers
            ],
            body=arrived.body,
        )
        response = await self._peer.call_idempotent(lambda stub: stub.VerifyWebhook, request)
        return "" if response.valid else response.reason

    async def prove_key(
        self,
        route: ProxyRoute,
        verdict: Verdict,
        connection_id: str,
        wanted: Provable,
        request_id: str,
        thumbprint: str,
    ) -> Secret:
        """Has the proof for one request made."""
        job = _job(route, verdict, connection_id, request_id, thumbprint)
        request = worker_pb2.ProveKeyRequest(job=job, method=wanted.method, url=wanted.url, nonce=wanted.nonce)
        response = await self._peer.call_idempotent(lambda stub: stub.ProveKey, request)
        return Secret(response.proof.encode())

    async def proxy(
        self, route: ProxyRoute, verdict: Verdict, asked: Asked, body: Body, request_id: str, thumbprint: str
    ) -> AsyncIterator[Answered | bytes]:
        """Has a request carried; gives the head of the answer, then its body."""
        head = worker_pb2.ProxyHead(
            job=_job(route, verdict, asked.connection, request_id, thumbprint),
            method=asked.method,
            base_url=asked.base_url,
            path=asked.path,
            query=asked.query,
            headers=[worker_pb2.Header(name=name, value=value) for name, value in asked.headers],
            has_body=not body.is_empty,
            content_length=asked.content_length,
        )

        first = worker_pb2.ProxyRequest(head=head)

        async def parts() -> AsyncIterator[worker_pb2.ProxyRequest]:
            yield first
            async for piece in body.pieces():
                yield worker_pb2.ProxyRequest(body=piece)

        if body.is_empty:
            answer = self._peer.ask(lambda stub: stub.Proxy, first, _LONGEST_PROXY_SECONDS, _is_whole)
        else:
            answer = self._peer.stream(lambda stub: stub.Proxy, parts(), _LONGEST_PROXY_SECONDS)
        async with aclosing(answer):  # type: ignore[type-var]  # it is a generator
            async for part in answer:
                if part.WhichOneof("part") == "head":
                    headers = tuple((each.name, each.value) for each in part.head.headers)
                    yield Answered(part.head.status, headers, part.head.body if part.head.is_whole else None)
                else:
                    yield part.body


def _is_whole(answer: worker_pb2.ProxyResponse) -> bool:
    return answer.WhichOneof("part") == "head" and answer.head.is_whole


def _job(route: ProxyRoute, verdict: Verdict, connection_id: str, request_id: str, thumbprint: str) -> worker_pb2.Job:
    found = pb.GetProxyRouteResponse.FromString(route.packed)
    return worker_pb2.Job(
        workspace_id=verdict.workspace,
        connection_id=connection_id,
        provider=found.provider,
        endpoints=found.endpoints,
        dialect=found.dialect,
        values=found.values,
        provider_config_id=found.provider_config_id,
        client_id=found.client_id,
        client_grant=found.client_grant,
        client_secret_classes=found.client_secret_classes,
        credential_grant=verdict.record_grant,
        request_id=request_id,
        consumer_thumbprint=thumbprint,
    )
