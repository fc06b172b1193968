"""The jobs: exchange, refresh, revoke. Each is one story: preflight, one request, seal, then judge (ARCHITECTURE §7)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from authpipe_consumer.payloads import access_payload, access_token_of
from authpipe_consumer.words import Consumer, Opened, SealedWrite, Sealing, Want, WriteKey
from authpipe_envelope import RecordClass, hosts_digest
from authpipe_oauth_worker.domain.answers import Answer, Failure, Tokens, judge_revocation, judge_tokens
from authpipe_oauth_worker.domain.ports import Bodies, Client, Sender, Slot, Spool
from authpipe_oauth_worker.errors import AnswerLostError, HostError
from authpipe_providers import Dialect
from authpipe_sensitive import DomainError, Secret, get_log, mask

# What a Provider's own way answers for a token that it does not know any more.
_NOTHING_THERE = {404, 410, 422}
_CLASS_OF = {"refresh_token": RecordClass.REFRESH, "access_token": RecordClass.ACCESS}
_WRITES = (RecordClass.ACCESS, RecordClass.REFRESH, RecordClass.ANSWER)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a job may go, and how the Provider is spoken to.

    Args:
        token: Where codes are exchanged.
        revocation: RFC 7009; empty: nowhere.
        auth_method: How our client shows who it is.
        hosts: The hosts to which the connection's credentials are bound.
        refresh: Where tokens are refreshed; empty: at the token endpoint.
        client_hosts: The hosts to which our client secret is bound; None: the same.
        dialect: How the Provider is spoken to; its URLs are filled.
        pins: Public keys of which each host shows one.
    """

    token: str
    revocation: str
    auth_method: str
    hosts: frozenset[str]
    refresh: str = ""
    client_hosts: frozenset[str] | None = None
    dialect: Dialect = Dialect()
    pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """What a job says.

    Args:
        workspace: The tenant.
        connection: The connection.
        config: The provider configuration.
        provider: The Provider, for the context.
        endpoints: Where it may go.
        client_id: The OAuth client id.
        client_grant: To open the client secret; empty: a public client.
        credential_grant: To open and write the connection's records.
        fence: The fence of the lease; 0: none.
        request_id: The request.
        scopes: What an answer without `scope` means.
        spend: Whether a refresh token may be sent.
        spent_fence: The fence under which one was sent of which nobody knows what came; 0: there is none.
    """

    workspace: str
    connection: str
    config: str
    provider: str
    endpoints: Endpoints
    client_id: str
    client_grant: str
    credential_grant: str
    fence: int
    request_id: str
    scopes: tuple[str, ...]
    spend: bool = True
    spent_fence: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job.

    Args:
        failure: A stable reason; empty: stored.
        scopes: The scopes granted.
        expires_at: When the access token ends; None: it does not say.
        refreshable: Whether a refresh token is stored.
        retry_after_seconds: What the Provider asked for; 0: nothing.
        nothing_sent: Whether it is sure that the Provider saw no request.
        metadata: What of the answer is worth keeping.
    """

    failure: str
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    refreshable: bool = False
    retry_after_seconds: int = 0
    nothing_sent: bool = False
    metadata: tuple[tuple[str, str], ...] = ()


class Jobs:
    """Carries out jobs.

    Args:
        vault: The consumer of user credentials.
        secrets: The consumer of client secrets.
        egress: The way out.
        bodies: Looks inside answers.
        spool: Where a sealed answer waits while vault is away.
        clock: Gives the time, with zone.
        randomness: Gives random bytes.
    """

    def __init__(
        self,
        vault: Consumer,
        secrets: Consumer,
        egress: Sender,
        bodies: Bodies,
        spool: Spool,
        clock: Callable[[], datetime],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._vault = vault
        self._secrets = secrets
        self._egress = egress
        self._bodies = bodies
        self._spool = spool
        self._clock = clock
        self._randomness = randomness

    async def prepare_flow(self, job: Job) -> str:
        """Makes a code verifier, stores it sealed, gives its challenge (RFC 7636, sections 4.1 and 4.2)."""
        verifier = base64.urlsafe_b64encode(self._randomness(32)).rstrip(b"=")
        keys = await self._vault.prepare(
            job.workspace, job.connection, [RecordClass.CODE_VERIFIER], job.credential_grant, job.request_id
        )
        record = self._vault.seal(keys[RecordClass.CODE_VERIFIER], self._sealing(job), Secret(verifier))
        await self._vault.put([record], [], job.credential_grant, job.request_id)
        return base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode()

    async def exchange_code(self, job: Job, code: str, redirect_uri: str) -> Outcome:
        """Exchanges an authorization code (RFC 6749, section 4.1.3)."""
        # Step 1: preflight. What cannot be opened or written later is not begun.
        secret = await self._client_secret(job)
        verifier = await self._open(job, RecordClass.CODE_VERIFIER)
        keys = await self._prepare(job)
        # Step 2: one request; nothing repeats it.
        form: dict[str, Secret | str] = {
            **dict(job.endpoints.dialect.token_parameters),
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier.plaintext,
        }
        with verifier.plaintext:
            answer = await self._send(job, job.endpoints.token, form, secret)
        # Step 3: seal, commit, then judge. The verifier is used up.
        consumed = [RecordClass.CODE_VERIFIER]
        return await self._keep(job, answer, keys, consumed)

    async def refresh(self, job: Job) -> Outcome:
        """Uses a refresh token (RFC 6749, section 6), unless an answer of an earlier attempt waits to be judged.

        What is known is in the outcome, whatever is away; an error that leaves here says nothing of the token.
        """
        # Step 1: preflight, before the token is spent (promise P36, case 24): what it needs is there, and the disk is.
        try:
            waiting = (await self._vault.open([self._want(job, RecordClass.ANSWER)]))[0]
            if not isinstance(waiting, Opened) and waiting.reason != "RECORD_NOT_FOUND":
                # There is one, and it does not open now: its token must not be spent again.
                raise waiting
            old = await self._open(job, RecordClass.REFRESH)
        except DomainError as error:
            return Outcome(error.reason, nothing_sent=True)
        with old.plaintext:
            try:
                keys = await self._prepare(job)
                # Step 2: an answer that was sealed before a crash is the answer; its token must not be spent again.
                if isinstance(waiting, Opened):
                    answer = self._bodies.unpack(waiting.plaintext)
                    return await self._judge_refresh(job, answer, keys, old.version)
                if not job.spend:
                    newer = 0 < job.spent_fence <= old.fence
                    return Outcome("REFRESH_TOKEN_NEWER" if newer else "ANSWER_AWAITED", nothing_sent=True)
                slot = self._spool.reserve()
                try:
                    secret = await self._client_secret(job)
                except DomainError:
                    slot.release()
                    raise
            except DomainError as error:
                return Outcome(error.reason, nothing_sent=True)
            # Step 3: one request; nothing repeats it.
            form: dict[str, Secret | str] = {
                **dict(job.endpoints.dialect.refresh_parameters),
                "grant_type": "refresh_token",
                "refresh_token": old.plaintext,
            }
            sent = await self._send(job, job.endpoints.refresh or job.endpoints.token, form, secret)
        if isinstance(sent, Failure):
            slot.release()
            return Outcome(sent.reason, nothing_sent=sent.reason != AnswerLostError.reason)
        # Step 4: seal, keep, commit, then judge.
        if failure := await self._store(job, sent, keys, slot):
            return Outcome(failure)
        return await self._judge_refresh(job, sent, keys, old.version)

    async def _store(self, job: Job, answer: Answer, keys: dict[RecordClass, WriteKey], slot: Slot) -> str:
        """Stores a sealed answer in vault, or on this worker's disk while vault is away; gives why it is not in vault."""
        sealed = self._vault.seal(keys[RecordClass.ANSWER], self._sealing(job), self._bodies.pack(answer))
        written = True
        try:
            # Before anybody waits for vault: from here on it outlives this process.
            slot.write(self._vault.pack(sealed))
        except DomainError as error:
            # The disk was there a moment ago; vault may be there now.
            get_log().error("an answer was not written to the disk", error=error)
            written = False
        try:
            await self._vault.put([sealed], [], job.credential_grant, job.request_id)
        except DomainError as error:
            get_log().warning("vault did not take an answer", error=error)
            if written:
                # Whatever the reason is: whether somebody waits for it is coordinator's to say, when it is delivered.
                return await _keep_on_disk(slot)
            slot.release()
            return AnswerLostError.reason
        slot.release()
        return ""

    async def _judge_refresh(
        self, job: Job, answer: Answer, keys: dict[RecordClass, WriteKey], version: int
    ) -> Outcome:
        try:
            outcome = await self._judge(job, answer, keys, [RecordClass.ANSWER])
            if outcome.failure == "INVALID_GRANT" and await self._stored_version(job) != version:
                # Somebody else had rotated it before us: the token that is stored now was not refused.
                return Outcome("REFRESH_TOKEN_REPLACED")
        except DomainError as error:
            get_log().warning("an answer is stored and not judged yet", error=error)
            return Outcome("ANSWER_STORED")
        return outcome

    async def _stored_version(self, job: Job) -> int:
        """Gives the version of the refresh token that is stored; it is not opened for that, which it may not be again."""
        return (await self._prepare(job))[RecordClass.REFRESH].version - 1

    async def revoke(self, job: Job) -> Failure | None:
        """Revokes a connection's tokens (RFC 7009); None: done, or there is nothing to revoke or no way to.

        The refresh token first: at most Providers its access tokens end with it.
        """
        own = job.endpoints.dialect.revocation
        if not job.endpoints.revocation and own is None:
            return None
        secret = await self._client_secret(job) if own is None or own.client else None
        worst: Failure | None = None
        taken = own.tokens if own is not None else ("refresh_token", "access_token")
        wanted = [(_CLASS_OF[hint], hint) for hint in taken]
        opened = await self._vault.open([self._want(job, each) for each, _ in wanted])
        for (record_class, hint), found in zip(wanted, opened, strict=True):
            if isinstance(found, DomainError):
                if found.reason == "RECORD_NOT_FOUND":
                    continue
                raise found
            self._require_hosts(job, found)
            with found.plaintext:
                token = _token_of(record_class, found.plaintext)
                try:
                    answer = await self._send_revocation(job, token, hint, secret)
                except DomainError as error:
                    return Failure(str(error.metadata.get("cause", error.reason)), retryable=True)
            failure = judge_revocation(answer, self._bodies.read(answer))
            if own is not None and answer.status in _NOTHING_THERE:
                failure = None
            if failure is not None and not (failure.reason == "UNSUPPORTED_TOKEN_TYPE" and hint == "access_token"):
                worst = failure
        return worst

    async def _send_revocation(self, job: Job, token: Secret, hint: str, secret: Secret | None) -> Answer:
        """Revokes one token as in RFC 7009, section 2.1, or in the Provider's own way."""
        own, pins = job.endpoints.dialect.revocation, job.endpoints.pins
        if own is None:
            form: dict[str, Secret | str] = {"token": token, "token_type_hint": hint}
            client = Client(job.client_id, secret, job.endpoints.auth_method)
            return await self._egress.post_form(job.endpoints.revocation, form, client, pins=pins)
        named: dict[str, Secret | str] = {own.name or "token": token} if own.token_in != "bearer" else {}  # noqa: S105  # a place
        if own.client and own.method == "POST":
            client = Client(job.client_id, secret, f"client_secret_{own.client}")
            return await self._egress.post_form(own.url, named, client, json_body=own.token_in == "json", pins=pins)  # noqa: S105  # a place
        headers: dict[str, Secret | str] = {}
        if own.token_in == "bearer":  # noqa: S105  # a place
            headers["authorization"] = self._bodies.bearer(token)
        if own.client:
            headers["authorization"] = self._bodies.basic(job.client_id, secret)
        as_json = own.token_in == "json"  # noqa: S105  # a place
        headers["content-type"] = "application/json" if as_json else "application/x-www-form-urlencoded"
        body = self._bodies.form(named, as_json=as_json) if named else None
        return await self._egress.send(own.method, own.url, headers, body, pins)

    async def _keep(
        self,
        job: Job,
        answer: Answer | Failure,
        keys: dict[RecordClass, WriteKey],
        consumed: list[RecordClass],
    ) -> Outcome:
        if isinstance(answer, Failure):
            return Outcome(answer.reason)
        sealed = self._vault.seal(keys[RecordClass.ANSWER], self._sealing(job), self._bodies.pack(answer))
        await self._vault.put([sealed], [], job.credential_grant, job.request_id)
        return await self._judge(job, answer, keys, [*consumed, RecordClass.ANSWER])

    async def _judge(
        self, job: Job, answer: Answer, keys: dict[RecordClass, WriteKey], consumed: list[RecordClass]
    ) -> Outcome:
        ended = [(job.workspace, job.connection, each) for each in consumed]
        dialect = job.endpoints.dialect
        said = self._bodies.read(answer, (dialect.answer.access_token, dialect.answer.refresh_token))
        judged = judge_tokens(answer, said, dialect)
        if isinstance(judged, Failure):
            await self._vault.put([], ended, job.credential_grant, job.request_id)
            return Outcome(judged.reason, retry_after_seconds=answer.retry_after_seconds)
        records, outcome = self._seal_tokens(job, judged, keys)
        await self._vault.put(records, ended, job.credential_grant, job.request_id)
        return outcome

    def _seal_tokens(
        self, job: Job, tokens: Tokens, keys: dict[RecordClass, WriteKey]
    ) -> tuple[list[SealedWrite], Outcome]:
        expires_at = None
        if tokens.life_seconds is not None:
            expires_at = self._clock() + timedelta(seconds=tokens.life_seconds)
        masked = mask(tokens.access_token)
        scopes = tokens.scopes or job.scopes
        sealing = self._sealing(job, masked=masked, expires_at=expires_at)
        with access_payload(tokens.access_token, scopes, expires_at) as payload:
            records = [self._vault.seal(keys[RecordClass.ACCESS], sealing, payload)]
        # A refresh token that is absent or empty: the old one stays (RFC 6749, section 6).
        if tokens.refresh_token is not None:
            with tokens.refresh_token:
                sealing = self._sealing(job)
                records.append(self._vault.seal(keys[RecordClass.REFRESH], sealing, tokens.refresh_token))
        tokens.access_token.destroy()
        refreshable = tokens.refresh_token is not None or job.fence > 0
        return records, Outcome("", scopes, expires_at, refreshable, metadata=tokens.metadata)

    async def _send(
        self, job: Job, url: str, form: Mapping[str, Secret | str], secret: Secret | None
    ) -> Answer | Failure:
        known = job.endpoints
        client = Client(job.client_id, secret, known.auth_method)
        try:
            return await self._egress.post_form(url, form, client, json_body=known.dialect.json_body, pins=known.pins)
        except AnswerLostError as error:
            get_log().warning("the answer of a provider was lost", error=error)
            return Failure(error.reason, retryable=True)
        except DomainError as error:
            return Failure(str(error.metadata.get("cause", error.reason)), retryable=True)
        finally:
            if secret is not None:
                secret.destroy()

    async def _client_secret(self, job: Job) -> Secret | None:
        if not job.client_grant:
            return None
        want = Want(job.workspace, job.config, RecordClass.CLIENT_SECRET, job.client_grant, job.request_id)
        found = (await self._secrets.open([want]))[0]
        if isinstance(found, DomainError):
            raise found
        hosts = job.endpoints.client_hosts
        self._require_hosts(job, found, job.endpoints.hosts if hosts is None else hosts)
        return found.plaintext

    async def _open(self, job: Job, record_class: RecordClass) -> Opened:
        found = (await self._vault.open([self._want(job, record_class)]))[0]
        if isinstance(found, DomainError):
            raise found
        self._require_hosts(job, found)
        return found

    async def _prepare(self, job: Job) -> dict[RecordClass, WriteKey]:
        return await self._vault.prepare(job.workspace, job.connection, _WRITES, job.credential_grant, job.request_id)

    def _want(self, job: Job, record_class: RecordClass) -> Want:
        return Want(job.workspace, job.connection, record_class, job.credential_grant, job.request_id)

    def _require_hosts(self, job: Job, opened: Opened, hosts: frozenset[str] | None = None) -> None:
        # What is sealed says where it may go; the job, which came from a database, does not.
        if (
            opened.hosts != hosts_digest(job.endpoints.hosts if hosts is None else hosts)
            or opened.provider != job.provider
        ):
            opened.plaintext.destroy()
            raise HostError

    def _sealing(self, job: Job, *, masked: str = "…", expires_at: datetime | None = None) -> Sealing:
        return Sealing(job.provider, hosts_digest(job.endpoints.hosts), masked, expires_at, job.fence)


async def _keep_on_disk(slot: Slot) -> str:
    try:
        await slot.keep()
    except DomainError as error:
        get_log().error("an answer could not be made durable", error=error)
        return AnswerLostError.reason
    get_log().warning("an answer waits on the disk")
    return "ANSWER_SPOOLED"


def _token_of(record_class: RecordClass, plaintext: Secret) -> Secret:
    return plaintext.copy() if record_class is RecordClass.REFRESH else access_token_of(plaintext)
