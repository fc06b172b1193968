"""The wire side of the worker: protobuf to jobs and back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

from authpipe.oauth.v1 import types_pb2
from authpipe.oauth.v1 import worker_pb2 as pb
from authpipe_envelope import RecordClass
from authpipe_grants import ConsumerKey
from authpipe_oauth_worker.domain.answers import Failure
from authpipe_oauth_worker.domain.checking import Check, Checking
from authpipe_oauth_worker.domain.jobs import Jobs
from authpipe_oauth_worker.domain.proxying import ProxyJob, Proxying, Ways, whole_of
from authpipe_oauth_worker.domain.resealing import Resealing, ResealJob
from authpipe_oauth_worker.domain.webhooks import Arrived, Webhooks
from authpipe_oauth_worker.domain.words import Endpoints, Job, Outcome, Renewal
from authpipe_oauth_worker.errors import ConsumerKeyChangedError, MalformedError
from authpipe_providers import Answer as AnswerPlaces
from authpipe_providers import (
    Assertion,
    Dialect,
    Placement,
    Revocation,
    Signing,
    TwoStep,
    ValueRule,
    WebhookScheme,
    client_hosts,
    connection_hosts,
    fill,
)
from authpipe_providers import Endpoints as Found


_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")


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
        job, how = self._job(request.job), _check(request)
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
        reason = await self._webhooks.verify(arrived, _scheme(request.scheme))
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

    async def Proxy(self, requests: AsyncIterator[pb.ProxyRequest], _: object) -> AsyncIterator[pb.ProxyResponse]:
        """Carries a request to a Provider's API, and its answer back."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "head":
            raise MalformedError
        head = first.head
        job = self._proxy_job(head)

        async def body() -> AsyncIterator[bytes]:
            async for each in requests:
                yield each.body

        async with self._proxying.carry(job, body() if head.has_body else None) as answered:
            headers = [pb.Header(name=name, value=value) for name, value in answered.headers]
            whole = await whole_of(job.method, answered)
            answer = pb.ProxyResponseHead(
                status=answered.status, headers=headers, is_whole=whole is not None, body=whole or b""
            )
            yield pb.ProxyResponse(head=answer)
            if whole is not None:
                return
            async for piece in answered.body:
                yield pb.ProxyResponse(body=piece)

    async def ProveKey(self, request: pb.ProveKeyRequest, _: object) -> pb.ProveKeyResponse:
        """Makes a proof of a key."""
        job = self._proxy_job(pb.ProxyHead(job=request.job, method=request.method))
        proof = await self._proxying.prove(job, request.url, request.nonce)
        return pb.ProveKeyResponse(proof=proof.expose().decode())

    def _proxy_job(self, head: pb.ProxyHead) -> ProxyJob:
        job = head.job
        self._require_key(job.consumer_thumbprint)
        found, (values, rules) = _endpoints(job), _filling(job)
        dialect = job.dialect
        return ProxyJob(
            job.workspace_id,
            job.connection_id,
            job.provider,
            found.hosts,
            tuple(fill(each, values, rules) for each in dialect.api_base_urls),
            _pairs(dialect.api_headers),
            _ways(dialect, values, found),
            found.dpop,
            self._job(job) if found.temporary else None,
            found.pins,
            job.credential_grant,
            job.request_id,
            head.method,
            head.base_url,
            head.path,
            head.query,
            tuple((each.name, each.value) for each in head.headers),
            head.content_length if head.HasField("content_length") else None,
        )

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

    def _job(self, job: pb.Job) -> Job:
        self._require_key(job.consumer_thumbprint)
        endpoints = _endpoints(job)
        return Job(
            job.workspace_id,
            job.connection_id,
            job.provider_config_id,
            job.provider,
            endpoints,
            job.client_id,
            job.client_grant,
            job.credential_grant,
            job.fence,
            job.request_id,
            tuple(job.scopes),
            job.spend,
            job.spent_fence,
            tuple(map(RecordClass, job.client_secret_classes)) or (RecordClass.CLIENT_SECRET,),
            Renewal(job.renewal) if job.renewal else Renewal.REFRESH_TOKEN,
        )


def _endpoints(job: pb.Job) -> Endpoints:
    """Fills the templates of a job. No value leads elsewhere than its template shows: the hosts follow from both."""
    wire, dialect = job.endpoints, job.dialect
    values, rules = _filling(job)

    def filled(url: str) -> str:
        return fill(url, values, rules) if url else ""

    own = dialect.revocation
    # One that has our client id in its address is of no use where there is no client, as for an API key.
    revokes = bool(own.url) and (bool(job.client_id) or "{client_id}" not in own.url)
    known = Dialect(
        token_parameters=_pairs(dialect.token_parameters),
        refresh_parameters=_pairs(dialect.refresh_parameters),
        json_body=dialect.json_body,
        answer=AnswerPlaces(
            dialect.access_token_pointer,
            dialect.refresh_token_pointer,
            dialect.expires_in_pointer,
            dialect.scope_pointer,
            dialect.token_type_absent,
        ),
        metadata=_pairs(dialect.metadata),
        life_seconds=dialect.life_seconds,
        revocation=Revocation(own.method, filled(own.url), own.token_in, own.name, own.client, tuple(own.tokens))
        if revokes
        else None,
        resource=dialect.resource,
        assertion=Assertion(
            dialect.assertion.audience, dialect.assertion.life_seconds or 300, dialect.assertion.scope_claim
        ),
        two_step=TwoStep(
            dialect.two_step.method,
            dialect.two_step.json_body,
            _pairs(dialect.two_step.headers),
            _pairs(dialect.two_step.fields),
        )
        if dialect.HasField("two_step")
        else None,
        scope_separator=dialect.scope_separator or " ",
        scope_parameter=dialect.scope_parameter or "scope",
        signature_method=dialect.signature_method,
        realm=_PLACE.sub(lambda place: values.get(place[1], ""), dialect.realm),
    )
    urls = (
        wire.token_endpoint,
        wire.refresh_endpoint,
        wire.revocation_endpoint,
        wire.pushed_authorization_request_endpoint,
        wire.device_authorization_endpoint,
        wire.introspection_endpoint,
        wire.userinfo_endpoint,
        wire.temporary_credentials_endpoint,
        own.url,
        *dialect.api_base_urls,
        dialect.health_check_url,
        dialect.rotation_check_url,
    )
    return Endpoints(
        filled(wire.token_endpoint),
        filled(wire.revocation_endpoint),
        wire.token_endpoint_auth_method,
        frozenset(connection_hosts(urls, values, rules)),
        filled(wire.refresh_endpoint),
        frozenset(client_hosts(urls, rules)),
        known,
        tuple(dialect.public_key_pins),
        filled(wire.pushed_authorization_request_endpoint),
        filled(wire.device_authorization_endpoint),
        filled(wire.introspection_endpoint),
        filled(wire.userinfo_endpoint),
        wire.dpop,
        filled(wire.temporary_credentials_endpoint),
    )


def _filling(job: pb.Job) -> tuple[dict[str, str], tuple[ValueRule, ...]]:
    rules = tuple(ValueRule(each.name, one_of=tuple(each.one_of)) for each in job.values)
    return {each.name: each.value for each in job.values} | {"client_id": job.client_id}, rules


def _check(request: pb.CheckHealthRequest) -> Check:
    dialect, (values, rules) = request.job.dialect, _filling(request.job)

    def filled(url: str) -> str:
        return fill(url, values, rules) if url else ""

    return Check(
        dialect.health_check_method or "GET",
        filled(dialect.health_check_url),
        _pairs(dialect.api_headers),
        _ways(dialect, values, _endpoints(request.job)),
        filled(dialect.rotation_check_url) if request.rotation else "",
        dialect.rotation_check_pointer,
    )


def _scheme(wire: types_pb2.WebhookScheme) -> WebhookScheme:
    return WebhookScheme(
        wire.algorithm or "sha256",
        wire.encoding or "hex",
        wire.signature_header.lower(),
        wire.prefix,
        wire.separator,
        wire.signed or "{body}",
        wire.timestamp_header.lower(),
        wire.timestamp_prefix,
        wire.id_header.lower(),
        wire.tolerance_seconds,
        wire.secret_prefix,
        wire.secret_base64,
    )


def _ways(dialect: types_pb2.Dialect, values: Mapping[str, str], known: Endpoints) -> Ways:
    """Gives how an API wants a credential of each kind."""
    own = dialect.signing
    signing = Signing(
        own.scheme,
        own.algorithm,
        own.encoding,
        own.body_encoding,
        own.signed,
        _pairs(own.headers),
        _pairs(own.query),
        own.time,
        own.secret_base64,
        own.service,
        values.get(own.region.strip("{}"), "") if own.region.startswith("{") else own.region,
    )
    return Ways(
        _placement(dialect.access_token_placement),
        _placement(dialect.api_key_placement),
        signing if dialect.HasField("signing") else None,
        known.dialect if known.temporary else None,
    )


def _placement(wire: types_pb2.Placement) -> Placement:
    return Placement(wire.where, wire.name, wire.prefix)


def _pairs(parameters: Iterable[types_pb2.Parameter]) -> tuple[tuple[str, str], ...]:
    return tuple((each.name, each.value) for each in parameters)


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
