"""Worker, by gRPC: one short method per rpc."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from authpipe.oauth.v1 import types_pb2
from authpipe.oauth.v1 import worker_pb2 as pb
from authpipe_envelope import RecordClass
from authpipe_grants import ConsumerKey
from authpipe_oauth_worker.domain.answers import Failure
from authpipe_oauth_worker.domain.checking import Checking
from authpipe_oauth_worker.domain.jobs import Jobs
from authpipe_oauth_worker.domain.proxying import ProxyJob, Proxying, whole_of
from authpipe_oauth_worker.domain.resealing import Resealing, ResealJob
from authpipe_oauth_worker.domain.webhooks import Arrived, Webhooks
from authpipe_oauth_worker.domain.words import Job, Outcome
from authpipe_oauth_worker.errors import ConsumerKeyChangedError, MalformedError
from authpipe_oauth_worker.servicer.reading import check_of, job_of, proxy_job_of, scheme_of
from authpipe_providers import Endpoints as Found
from authpipe_rpc import Requests


class WorkerServicer:
    """Serves Worker.

    Args:
        jobs: Carries out jobs.
        resealing: Seals records again.
        proxying: Carries requests to APIs.
        checking: Tries credentials.
        webhooks: Compares signatures.
        discover: Fetches metadata.
        key: This worker's HPKE key.
    """

    def __init__(
        self,
        jobs: Jobs,
        resealing: Resealing,
        proxying: Proxying,
        checking: Checking,
        webhooks: Webhooks,
        discover: Callable[[str], Awaitable[Found]],
        key: ConsumerKey,
    ) -> None:
        self._jobs = jobs
        self._resealing = resealing
        self._proxying = proxying
        self._checking = checking
        self._webhooks = webhooks
        self._going: set[asyncio.Task[Outcome]] = set()
        self._discover = discover
        self._key = key

    async def GetConsumerKey(self, _: pb.GetConsumerKeyRequest, __: object) -> pb.GetConsumerKeyResponse:
        """Gives the HPKE public key."""
        return pb.GetConsumerKeyResponse(public_key=self._key.public)

    async def Discover(self, request: pb.DiscoverRequest, _: object) -> pb.DiscoverResponse:
        """Fetches a Provider's metadata."""
        found = await self._discover(request.issuer)
        return pb.DiscoverResponse(
            endpoints=types_pb2.ProviderEndpoints(
                issuer=found.issuer,
                authorization_endpoint=found.authorization_endpoint,
                token_endpoint=found.token_endpoint,
                revocation_endpoint=found.revocation_endpoint,
                token_endpoint_auth_method=found.auth_method,
                iss_required=found.iss_required,
                pushed_authorization_request_endpoint=found.pushed_endpoint,
                device_authorization_endpoint=found.device_endpoint,
                introspection_endpoint=found.introspection_endpoint,
                userinfo_endpoint=found.userinfo_endpoint,
                dpop=found.dpop,
            )
        )

    async def PrepareFlow(self, request: pb.PrepareFlowRequest, _: object) -> pb.PrepareFlowResponse:
        """Makes and stores a code verifier."""
        prepared = await self._jobs.prepare_flow(self._job(request.job))
        return pb.PrepareFlowResponse(code_challenge=prepared.challenge, dpop_jkt=prepared.dpop_jkt)

    async def BeginOAuth1(self, request: pb.BeginOAuth1Request, _: object) -> pb.BeginOAuth1Response:
        """Asks for temporary credentials."""
        begun = await self._jobs.begin_oauth1(self._job(request.job), request.callback)
        if isinstance(begun, Failure):
            return pb.BeginOAuth1Response(failure=begun.reason)
        return pb.BeginOAuth1Response(oauth_token=begun.expose().decode())

    async def ExchangeCode(self, request: pb.ExchangeCodeRequest, _: object) -> pb.ExchangeCodeResponse:
        """Exchanges a code."""
        job = self._job(request.job)
        if job.endpoints.temporary:
            outcome = await self._jobs.exchange_verifier(job, request.oauth_token, request.code)
        else:
            outcome = await self._jobs.exchange_code(job, request.code, request.redirect_uri)
        return pb.ExchangeCodeResponse(outcome=_outcome(outcome))

    async def BeginDevice(self, request: pb.BeginDeviceRequest, _: object) -> pb.BeginDeviceResponse:
        """Asks for a device code."""
        began = await self._jobs.begin_device(self._job(request.job))
        if isinstance(began, Failure):
            return pb.BeginDeviceResponse(failure=began.reason)
        return pb.BeginDeviceResponse(
            user_code=began.user_code,
            verification_uri=began.verification_uri,
            verification_uri_complete=began.verification_uri_complete,
            life_seconds=began.life_seconds,
            interval_seconds=began.interval_seconds,
        )

    async def PollDevice(self, request: pb.PollDeviceRequest, _: object) -> pb.PollDeviceResponse:
        """Asks once whether a person has agreed."""
        return pb.PollDeviceResponse(outcome=_outcome(await self._jobs.poll_device(self._job(request.job))))

    async def PushAuthorization(self, request: pb.PushAuthorizationRequest, _: object) -> pb.PushAuthorizationResponse:
        """Pushes an authorization request."""
        parameters = {each.name: each.value for each in request.parameters}
        pushed = await self._jobs.push_authorization(self._job(request.job), parameters)
        if isinstance(pushed, Failure):
            return pb.PushAuthorizationResponse(failure=pushed.reason)
        return pb.PushAuthorizationResponse(request_uri=pushed)

    async def CheckHealth(self, request: pb.CheckHealthRequest, _: object) -> pb.CheckHealthResponse:
        """Tries a credential."""
        job, how = self._job(request.job), check_of(request)
        try:
            record_class = RecordClass(request.record_class)
        except ValueError:
            raise MalformedError from None
        checked = await self._checking.check(job, record_class, how)
        response = pb.CheckHealthResponse(failure=checked.failure, refused=checked.refused)
        if checked.rotate_at is not None:
            response.rotate_time.FromDatetime(checked.rotate_at)
        return response

    async def VerifyWebhook(self, request: pb.VerifyWebhookRequest, _: object) -> pb.VerifyWebhookResponse:
        """Compares a webhook's signature."""
        self._require_key(request.consumer_thumbprint)
        arrived = Arrived(
            request.workspace_id,
            request.connection_id,
            request.credential_grant,
            request.request_id,
            {each.name.lower(): each.value.decode("latin-1") for each in request.headers},
            request.body,
        )
        reason = await self._webhooks.verify(arrived, scheme_of(request.scheme))
        return pb.VerifyWebhookResponse(valid=not reason, reason=reason)

    async def Refresh(self, request: pb.RefreshRequest, _: object) -> pb.RefreshResponse:
        """Uses a refresh token."""
        # Whoever asked may die or give up; a token that was sent must not lose its answer with them.
        task = asyncio.create_task(self._jobs.refresh(self._job(request.job)), name="refresh")
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        return pb.RefreshResponse(outcome=_outcome(await asyncio.shield(task)))

    async def finish(self) -> None:
        """Waits for refreshes that nobody waits for any more."""
        await asyncio.gather(*self._going, return_exceptions=True)

    async def Revoke(self, request: pb.RevokeRequest, _: object) -> pb.RevokeResponse:
        """Revokes tokens."""
        failure = await self._jobs.revoke(self._job(request.job))
        if failure is None:
            return pb.RevokeResponse(revoked=True)
        return pb.RevokeResponse(
            failure=failure.reason,
            retryable=failure.retryable,
            retry_after_seconds=failure.retry_after_seconds,
        )

    async def Proxy(self, requests: Requests, _: object) -> AsyncIterator[pb.ProxyResponse]:
        """Carries requests to Providers' APIs, one after another, and their answers back."""

        async def body() -> AsyncIterator[bytes]:
            async for each in requests:
                yield each.body

        async for first in requests.turns():
            if first.WhichOneof("part") != "head":
                raise MalformedError
            head = first.head
            job = self._proxy_job(head)
            async with self._proxying.carry(job, body() if head.has_body else None) as answered:
                headers = [pb.Header(name=name, value=value) for name, value in answered.headers]
                whole = await whole_of(job.method, answered)
                answer = pb.ProxyResponseHead(
                    status=answered.status, headers=headers, is_whole=whole is not None, body=whole or b""
                )
                yield pb.ProxyResponse(head=answer)
                if whole is None:
                    async for piece in answered.body:
                        yield pb.ProxyResponse(body=piece)
            if head.has_body or whole is None:
                return

    async def ProveKey(self, request: pb.ProveKeyRequest, _: object) -> pb.ProveKeyResponse:
        """Makes a proof of a key."""
        job = self._proxy_job(pb.ProxyHead(job=request.job, method=request.method))
        proof = await self._proxying.prove(job, request.url, request.nonce)
        return pb.ProveKeyResponse(proof=proof.expose().decode())

    async def Reseal(self, request: pb.ResealRequest, _: object) -> pb.ResealResponse:
        """Seals records again."""
        self._require_key(request.consumer_thumbprint)
        try:
            classes = tuple(RecordClass(each) for each in request.record_classes)
        except ValueError:
            raise MalformedError from None
        job = ResealJob(
            request.workspace_id, request.connection_id, classes, request.grant, request.fence, request.request_id
        )
        return pb.ResealResponse(resealed_count=await self._resealing.reseal(job))

    def _require_key(self, thumbprint: str) -> None:
        if thumbprint != self._key.thumbprint:
            raise ConsumerKeyChangedError

    def _job(self, wire: pb.Job) -> Job:
        self._require_key(wire.consumer_thumbprint)
        return job_of(wire)

    def _proxy_job(self, head: pb.ProxyHead) -> ProxyJob:
        self._require_key(head.job.consumer_thumbprint)
        return proxy_job_of(head)


def _outcome(outcome: Outcome) -> pb.TokenOutcome:
    wire = pb.TokenOutcome(
        failure=outcome.failure,
        scopes=outcome.scopes,
        refreshable=outcome.refreshable,
        retry_after_seconds=outcome.retry_after_seconds,
        nothing_sent=outcome.nothing_sent,
        metadata=[types_pb2.Parameter(name=name, value=value) for name, value in outcome.metadata],
    )
    if outcome.expires_at is not None:
        wire.expire_time.FromDatetime(outcome.expires_at)
    return wire
