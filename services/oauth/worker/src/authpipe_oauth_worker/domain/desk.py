"""What every job does with its records and at its Provider: opens, prepares, sends once, seals before it judges, stores.

What is sealed says where it may go; the job, which came from a database, does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from authpipe_consumer.payloads import access_payload
from authpipe_consumer.words import Consumer, Opened, SealedWrite, Sealing, Want, WriteKey
from authpipe_envelope import RecordClass, hosts_digest
from authpipe_oauth_worker.domain.answers import Answer, Failure, Tokens, judge_tokens
from authpipe_oauth_worker.domain.nonces import Nonces
from authpipe_oauth_worker.domain.opening import open_together
from authpipe_oauth_worker.domain.ports import Bodies, Client, Proofs, Sender
from authpipe_oauth_worker.domain.words import Job, Outcome, Renewal
from authpipe_oauth_worker.errors import AnswerLostError, HostError
from authpipe_sensitive import DomainError, Secret, get_log, mask

Form = Mapping[str, Secret | str]
_WRITES = (RecordClass.ACCESS, RecordClass.REFRESH, RecordClass.ANSWER)
# What a token endpoint answers that does not know our client (RFC 6749, section 5.2).
_NOT_OUR_CLIENT = {400, 401}


class Desk:
    """The steps that jobs share.

    Args:
        vault: The consumer of user credentials.
        secrets: The consumer of client secrets.
        egress: The way out.
        bodies: Looks inside answers.
        clock: Gives the time, with zone.
        proofs: Makes keys that tokens are bound to, and proofs of having them.
        nonces: What servers want in those.
    """

    def __init__(
        self,
        vault: Consumer,
        secrets: Consumer,
        egress: Sender,
        bodies: Bodies,
        clock: Callable[[], datetime],
        proofs: Proofs,
        nonces: Nonces,
    ) -> None:
        self.vault = vault
        self.egress = egress
        self.bodies = bodies
        self.clock = clock
        self.proofs = proofs
        self.nonces = nonces
        self._secrets = secrets

    async def client_secrets(self, job: Job) -> list[Secret | None]:
        """Opens our client secrets, the one to try first first; for a public client there is none, and it is tried once.

        Raises:
            DomainError: None of them opens.
            HostError: One is not bound to the hosts of the job.
        """
        if not job.client_grant:
            return [None]
        # Of a thousand tokens that are due at a moment most are one client's: it is opened once for all of them.
        wants = [
            Want(job.workspace, job.config, each, job.client_grant, job.request_id, shared=True)
            for each in job.client_secrets
        ]
        hosts = job.endpoints.client_hosts
        opened: list[Secret | None] = []
        refusal: DomainError | None = None
        for found in await self._secrets.open(wants):
            if isinstance(found, DomainError):
                # One that was retired meanwhile is not there any more; the other one is.
                refusal = found
                continue
            self.require_hosts(job, found, job.endpoints.hosts if hosts is None else hosts)
            opened.append(found.plaintext)
        if not opened and refusal is not None:
            raise refusal
        return opened

    async def client(self, job: Job) -> Client:
        """Gives our client with the secret that is in use; of two, the newer one."""
        first, *others = await self.client_secrets(job)
        for each in others:
            if each is not None:
                each.destroy()
        return Client(job.client_id, first, job.endpoints.auth_method)

    async def open(self, job: Job, record_class: RecordClass) -> Opened:
        """Opens a record of the job's connection.

        Raises:
            DomainError: It does not open.
            HostError: It is not bound to the hosts of the job.
        """
        found = (await self.vault.open([self.want(job, record_class)]))[0]
        if isinstance(found, DomainError):
            raise found
        self.require_hosts(job, found)
        return found

    async def open_bound(self, job: Job, record_class: RecordClass) -> tuple[Opened, Secret | None]:
        """Opens a token with the key that it is bound to, in one call; None: it is bound to none.

        Raises:
            DomainError: One of them does not open now, or is bound to other hosts; neither is left in memory.
        """
        beside = [RecordClass.DPOP_KEY] if job.endpoints.dpop and record_class is RecordClass.ACCESS else []
        wants = [self.want(job, each) for each in (record_class, *beside)]
        found, *keys = await open_together(self.vault, wants, beside, lambda each: self.require_hosts(job, each))
        if found is None:
            raise AssertionError("It is not optional.")
        return found, keys[0].plaintext if keys and keys[0] is not None else None

    async def prepare(self, job: Job) -> dict[RecordClass, WriteKey]:
        """Has the write keys of an answer and of what comes of it released."""
        return await self.vault.prepare(job.workspace, job.connection, _WRITES, job.credential_grant, job.request_id)

    def want(self, job: Job, record_class: RecordClass) -> Want:
        """Names a record of the job's connection."""
        return Want(job.workspace, job.connection, record_class, job.credential_grant, job.request_id)

    def require_hosts(self, job: Job, opened: Opened, hosts: frozenset[str] | None = None) -> None:
        """Returns when a record is bound to the hosts of the job, and to its Provider.

        Raises:
            HostError: It is not; it was overwritten.
        """
        bound = hosts_digest(job.endpoints.hosts if hosts is None else hosts)
        if opened.hosts != bound or opened.provider != job.provider:
            opened.plaintext.destroy()
            raise HostError

    def sealing(self, job: Job, *, masked: str = "…", expires_at: datetime | None = None) -> Sealing:
        """Says what a new record of the job is bound to."""
        return Sealing(job.provider, hosts_digest(job.endpoints.hosts), masked, expires_at, job.fence)

    @staticmethod
    def resource(job: Job) -> dict[str, Secret | str]:
        """Gives the parameter that says what tokens are for (RFC 8707, section 2.2), if anything is said."""
        resource = job.endpoints.dialect.resource
        return {"resource": resource} if resource else {}

    async def open_key(self, job: Job) -> Secret | None:
        """Opens the key that the connection's tokens are bound to; None: they are not.

        Raises:
            DomainError: It does not open now.
            HostError: It is not bound to the hosts of the job.
        """
        if not job.endpoints.dpop:
            return None
        try:
            return (await self.open(job, RecordClass.DPOP_KEY)).plaintext
        except DomainError as error:
            if error.reason == "RECORD_NOT_FOUND":
                return None
            raise

    async def send(
        self, job: Job, url: str, form: Form, secrets: Sequence[Secret | None], key: Secret | None = None
    ) -> Answer | Failure:
        """Sends a token request, once; and once more as the same client with its other secret, if the first is not taken.

        Args:
            job: The job.
            url: Where.
            form: What it says.
            secrets: Our client secrets, the one to try first first.
            key: What tokens are bound to; None: nothing.
        """
        known = job.endpoints
        try:
            for number, secret in enumerate(secrets, 1):
                client = Client(job.client_id, secret, known.auth_method)
                answer = await self._ask(job, url, form, client, key)
                if number == len(secrets) or not self._refuses_our_client(answer):
                    return answer
                get_log().info("a provider does not take the newer client secret, the older one is tried")
        except AnswerLostError as error:
            get_log().warning("the answer of a provider was lost", error=error)
            return Failure(error.reason, retryable=True)
        except DomainError as error:
            return Failure(str(error.metadata.get("cause", error.reason)), retryable=True)
        finally:
            for secret in secrets:
                if secret is not None:
                    secret.destroy()
        raise AssertionError("A client without a secret is tried too.")

    async def _ask(self, job: Job, url: str, form: Form, client: Client, key: Secret | None) -> Answer:
        """Sends a token request; and once more with the nonce that the server wants in the proof of a key.

        Then nothing but the proof was judged, so that nothing is spent (RFC 9449, section 8).
        """
        again = False
        while True:
            nonce, proof = self.nonces.of(url), None
            if key is not None:
                proof = self.proofs.proof(key, "POST", url, self.clock(), nonce=nonce)
            known = job.endpoints
            answer = await self.egress.post_form(
                url, form, client, json_body=known.dialect.json_body, pins=known.pins, proof=proof
            )
            self.nonces.note(url, answer.dpop_nonce)
            if key is None or again or not self._wants_nonce(answer):
                return answer
            again = True

    def _wants_nonce(self, answer: Answer) -> bool:
        if answer.status not in _NOT_OUR_CLIENT or not answer.dpop_nonce:
            return False
        judged = judge_tokens(answer, self.bodies.read(answer))
        return isinstance(judged, Failure) and judged.reason == "USE_DPOP_NONCE"

    def _refuses_our_client(self, answer: Answer) -> bool:
        """Whether nothing but our client was judged: no token, code or key was looked at, so none is spent."""
        if answer.status not in _NOT_OUR_CLIENT:
            return False
        judged = judge_tokens(answer, self.bodies.read(answer))
        return isinstance(judged, Failure) and judged.reason == "INVALID_CLIENT"

    async def keep(
        self, job: Job, answer: Answer | Failure, keys: dict[RecordClass, WriteKey], consumed: list[RecordClass]
    ) -> Outcome:
        """Seals and stores an answer, then judges it."""
        if isinstance(answer, Failure):
            return Outcome(answer.reason)
        sealed = self.vault.seal(keys[RecordClass.ANSWER], self.sealing(job), self.bodies.pack(answer))
        await self.vault.put([sealed], [], job.credential_grant, job.request_id)
        return await self.judge(job, answer, keys, [*consumed, RecordClass.ANSWER])

    async def judge(
        self, job: Job, answer: Answer, keys: dict[RecordClass, WriteKey], consumed: list[RecordClass]
    ) -> Outcome:
        """Judges an answer that is stored, and stores what comes of it in its place."""
        ended = [(job.workspace, job.connection, each) for each in consumed]
        dialect = job.endpoints.dialect
        said = self.bodies.read(answer, (dialect.answer.access_token, dialect.answer.refresh_token))
        judged = judge_tokens(answer, said, dialect, bound=job.endpoints.dpop)
        if isinstance(judged, Failure):
            await self.vault.put([], ended, job.credential_grant, job.request_id)
            return Outcome(judged.reason, retry_after_seconds=answer.retry_after_seconds)
        records, outcome = self._seal_tokens(job, judged, keys)
        await self.vault.put(records, ended, job.credential_grant, job.request_id)
        return outcome

    def _seal_tokens(
        self, job: Job, tokens: Tokens, keys: dict[RecordClass, WriteKey]
    ) -> tuple[list[SealedWrite], Outcome]:
        expires_at = None
        if tokens.life_seconds is not None:
            expires_at = self.clock() + timedelta(seconds=tokens.life_seconds)
        masked = mask(tokens.access_token)
        scopes = tokens.scopes or job.scopes
        sealing = self.sealing(job, masked=masked, expires_at=expires_at)
        with access_payload(tokens.access_token, scopes, expires_at, tokens.token_type) as payload:
            records = [self.vault.seal(keys[RecordClass.ACCESS], sealing, payload)]
        # A refresh token that is absent or empty: the old one stays (RFC 6749, section 6).
        if tokens.refresh_token is not None and job.renewal is Renewal.REFRESH_TOKEN:
            with tokens.refresh_token:
                # With the end of the access token beside it: whoever finds it later knows what came with it.
                sealing = self.sealing(job, expires_at=expires_at)
                records.append(self.vault.seal(keys[RecordClass.REFRESH], sealing, tokens.refresh_token))
        tokens.access_token.destroy()
        refreshable = tokens.refresh_token is not None or job.fence > 0
        return records, Outcome("", scopes, expires_at, refreshable, metadata=tokens.metadata)
