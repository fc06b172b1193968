"""Flows: a code verifier that waits sealed, an authorization request that is pushed, a code that is exchanged."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext

from authpipe_envelope import RecordClass
from authpipe_oauth_worker.domain.answers import Failure, judge_pushed
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.words import Job, Outcome, Prepared
from authpipe_sensitive import Secret


class Exchange:
    """Carries out the jobs of a flow.

    Args:
        desk: The steps that jobs share.
        randomness: Gives random bytes.
    """

    def __init__(self, desk: Desk, randomness: Callable[[int], bytes]) -> None:
        self._desk = desk
        self._randomness = randomness

    async def prepare_flow(self, job: Job) -> Prepared:
        """Makes a code verifier, stores it sealed, gives its challenge (RFC 7636, sections 4.1 and 4.2).

        And the key that tokens are to be bound to, where they are. One that is there stays: the token that is served until
        this flow ends is bound to it.
        """
        vault, desk = self._desk.vault, self._desk
        verifier = base64.urlsafe_b64encode(self._randomness(32)).rstrip(b"=")
        new = {RecordClass.CODE_VERIFIER: Secret(verifier)}
        jkt = ""
        if job.endpoints.dpop:
            key = await desk.open_key(job)
            if key is None:
                key = new[RecordClass.DPOP_KEY] = desk.proofs.new_key()
            jkt = desk.proofs.thumbprint(key)
        keys = await vault.prepare(job.workspace, job.connection, list(new), job.credential_grant, job.request_id)
        records = [vault.seal(keys[each], desk.sealing(job), secret) for each, secret in new.items()]
        await vault.put(records, [], job.credential_grant, job.request_id)
        return Prepared(base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode(), jkt)

    async def push_authorization(self, job: Job, parameters: Mapping[str, Secret | str]) -> str | Failure:
        """Pushes an authorization request (RFC 9126, section 2); gives what the browser carries in its place."""
        secrets = await self._desk.client_secrets(job)
        answer = await self._desk.send(job, job.endpoints.pushed, parameters, secrets)
        if isinstance(answer, Failure):
            return answer
        return judge_pushed(answer, self._desk.bodies.read(answer))

    async def exchange_code(self, job: Job, code: str, redirect_uri: str) -> Outcome:
        """Exchanges an authorization code (RFC 6749, section 4.1.3)."""
        # Step 1: preflight. What cannot be opened or written later is not begun.
        secrets = await self._desk.client_secrets(job)
        verifier = await self._desk.open(job, RecordClass.CODE_VERIFIER)
        key = await self._desk.open_key(job)
        keys = await self._desk.prepare(job)
        # Step 2: one request; nothing repeats it.
        form: dict[str, Secret | str] = {
            **dict(job.endpoints.dialect.token_parameters),
            **self._desk.resource(job),
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier.plaintext,
        }
        with verifier.plaintext, key or nullcontext():
            answer = await self._desk.send(job, job.endpoints.token, form, secrets, key)
        # Step 3: seal, commit, then judge. The verifier is used up.
        return await self._desk.keep(job, answer, keys, [RecordClass.CODE_VERIFIER])
