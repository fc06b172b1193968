"""Refresh: preflight, one request, seal and keep, then judge (ARCHITECTURE §7; promise P36)."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext

from authpipe_consumer.words import Opened, WriteKey
from authpipe_envelope import RecordClass
from authpipe_oauth_worker.domain.answers import Answer, Failure
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.opening import open_together
from authpipe_oauth_worker.domain.ports import Asks, Slot, Spool
from authpipe_oauth_worker.domain.words import Job, Outcome, Renewal
from authpipe_oauth_worker.errors import AnswerLostError
from authpipe_sensitive import DomainError, Secret, get_log

# Whose first token comes of a request of our own, so that a key can be there before it. A refresh token that was imported came with
# a Bearer token, which its owner goes on using.
_BOUND_FROM_THE_START = {Renewal.CLIENT_CREDENTIALS, Renewal.JWT_BEARER, Renewal.TOKEN_EXCHANGE}


class Refresh:
    """Carries out refreshes.

    Args:
        desk: The steps that jobs share.
        spool: Where a sealed answer waits while vault is away.
        asks: Writes what tokens are asked for with, where it is not a refresh token.
    """

    def __init__(self, desk: Desk, spool: Spool, asks: Asks) -> None:
        self._desk = desk
        self._spool = spool
        self._asks = asks

    async def refresh(self, job: Job) -> Outcome:
        """Asks for the next access token, unless an answer of an earlier attempt waits to be judged.

        What is known is in the outcome, whatever is away; an error that leaves here says nothing of the token.
        """
        # Step 1: preflight, before the token is spent (promise P36, case 24): what it needs is there, and the disk is.
        try:
            waiting, old, key = await self._open(job)
        except DomainError as error:
            return Outcome(error.reason, nothing_sent=True)
        with ExitStack() as held:
            held.enter_context(old.plaintext)
            held.enter_context(key or nullcontext())
            try:
                keys = await self._desk.prepare(job)
                # Step 2: an answer that was sealed before a crash is the answer; its token must not be spent again.
                if waiting is not None:
                    answer = self._desk.bodies.unpack(waiting.plaintext)
                    return await self._judge(job, answer, keys, old.version)
                if not job.spend:
                    return _looked_for(job, old)
                if key is None and job.endpoints.dpop and job.renewal in _BOUND_FROM_THE_START:
                    key = held.enter_context(await self._make_key(job))
                slot = self._spool.reserve()
                try:
                    secrets = await self._desk.client_secrets(job)
                except DomainError:
                    slot.release()
                    raise
            except DomainError as error:
                return Outcome(error.reason, nothing_sent=True)
            # Step 3: one request; nothing repeats it.
            sent = await self._send(job, old.plaintext, secrets, key)
        if isinstance(sent, Failure):
            slot.release()
            return Outcome(sent.reason, nothing_sent=sent.reason != AnswerLostError.reason)
        # Step 4: seal, keep, commit, then judge.
        if failure := await self._store(job, sent, keys, slot):
            return Outcome(failure)
        return await self._judge(job, sent, keys, old.version)

    async def _open(self, job: Job) -> tuple[Opened | None, Opened, Secret | None]:
        """Opens the answer that waits to be judged, what the next token is asked for with, and what it is bound to.

        Raises:
            DomainError: One of them does not open, or is bound to other hosts; none is left in memory.
        """
        optional = [RecordClass.ANSWER, *([RecordClass.DPOP_KEY] if job.endpoints.dpop else [])]
        wants = [self._desk.want(job, each) for each in (RecordClass.REFRESH, *optional)]
        # An answer or a key that is there and does not open now: its token must not be spent.
        desk = self._desk
        opened = await open_together(desk.vault, wants, optional, lambda each: desk.require_hosts(job, each))
        old, waiting, *keys = opened
        if old is None:
            raise AssertionError("It is not optional.")
        return waiting, old, keys[0].plaintext if keys and keys[0] is not None else None

    async def _make_key(self, job: Job) -> Secret:
        """Makes the key that the tokens of a connection of no person are bound to, and stores it before it is used."""
        vault, wanted = self._desk.vault, [RecordClass.DPOP_KEY]
        keys = await vault.prepare(job.workspace, job.connection, wanted, job.credential_grant, job.request_id)
        key = self._desk.proofs.new_key()
        record = vault.seal(keys[RecordClass.DPOP_KEY], self._desk.sealing(job), key)
        try:
            await vault.put([record], [], job.credential_grant, job.request_id)
        except DomainError:
            key.destroy()
            raise
        return key

    async def _send(
        self, job: Job, material: Secret, secrets: list[Secret | None], key: Secret | None
    ) -> Answer | Failure:
        """Sends what the next token is asked for with: one request."""
        url = job.endpoints.refresh or job.endpoints.token
        if job.renewal is Renewal.REFRESH_TOKEN:
            form: dict[str, Secret | str] = {
                **dict(job.endpoints.dialect.refresh_parameters),
                **self._desk.resource(job),
                "grant_type": "refresh_token",
                "refresh_token": material,
            }
            return await self._desk.send(job, url, form, secrets, key)
        try:
            ask = self._asks(job, material, self._desk.clock())
        except DomainError as error:
            return Failure(error.reason, retryable=False)
        if ask.request is None:
            return await self._desk.send(job, job.endpoints.token, ask.form, secrets, key)
        try:
            return await self._desk.egress.send(*ask.request, job.endpoints.pins)
        except AnswerLostError as error:
            return Failure(error.reason, retryable=True)
        except DomainError as error:
            return Failure(str(error.metadata.get("cause", error.reason)), retryable=True)

    async def _store(self, job: Job, answer: Answer, keys: dict[RecordClass, WriteKey], slot: Slot) -> str:
        """Stores a sealed answer in vault, or on this worker's disk while vault is away; gives why it is not in vault."""
        vault = self._desk.vault
        sealed = vault.seal(keys[RecordClass.ANSWER], self._desk.sealing(job), self._desk.bodies.pack(answer))
        written = True
        try:
            # Before anybody waits for vault: from here on it outlives this process.
            slot.write(vault.pack(sealed))
        except DomainError as error:
            # The disk was there a moment ago; vault may be there now.
            get_log().error("an answer was not written to the disk", error=error)
            written = False
        try:
            await vault.put([sealed], [], job.credential_grant, job.request_id)
        except DomainError as error:
            get_log().warning("vault did not take an answer", error=error)
            if written:
                # Whatever the reason is: whether somebody waits for it is coordinator's to say, when it is delivered.
                return await _keep_on_disk(slot)
            slot.release()
            return AnswerLostError.reason
        slot.release()
        return ""

    async def _judge(self, job: Job, answer: Answer, keys: dict[RecordClass, WriteKey], version: int) -> Outcome:
        try:
            outcome = await self._desk.judge(job, answer, keys, [RecordClass.ANSWER])
            if outcome.failure == "INVALID_GRANT" and await self._stored_version(job) != version:
                # Somebody else had rotated it before us: the token that is stored now was not refused.
                return Outcome("REFRESH_TOKEN_REPLACED")
        except DomainError as error:
            get_log().warning("an answer is stored and not judged yet", error=error)
            return Outcome("ANSWER_STORED")
        return outcome

    async def _stored_version(self, job: Job) -> int:
        """Gives the version of the refresh token that is stored; it is not opened for that, which it may not be again."""
        return (await self._desk.prepare(job))[RecordClass.REFRESH].version - 1


def _looked_for(job: Job, stored: Opened) -> Outcome:
    """Says what the refresh token that is stored tells of the one that may be spent."""
    if not 0 < job.spent_fence <= stored.fence:
        return Outcome("ANSWER_AWAITED", nothing_sent=True)
    # That refresh had come to its end. The record says until when the access token lives that came with this one.
    return Outcome("REFRESH_TOKEN_NEWER", expires_at=stored.expires_at, nothing_sent=True)


async def _keep_on_disk(slot: Slot) -> str:
    try:
        await slot.keep()
    except DomainError as error:
        get_log().error("an answer could not be made durable", error=error)
        return AnswerLostError.reason
    get_log().warning("an answer waits on the disk")
    return "ANSWER_SPOOLED"
