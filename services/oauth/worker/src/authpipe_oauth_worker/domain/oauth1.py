"""OAuth 1.0a (RFC 5849): temporary credentials that wait sealed, and a verifier that is exchanged for a token and its secret.

There is no PKCE in it. Its place has the secret of the temporary credentials: whoever sees what the browser carries, the token and
the verifier, can do nothing without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from authpipe_consumer.payloads import oauth1_of, oauth1_payload
from authpipe_envelope import RecordClass
from authpipe_oauth_worker.domain.answers import Answer, Failure, TokenPair, judge_token_pair
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.ports import Client, Signs
from authpipe_oauth_worker.domain.words import Job, Outcome
from authpipe_oauth_worker.errors import AnswerLostError
from authpipe_sensitive import DomainError, Secret, mask

_UNAUTHORIZED = 401


class OAuth1:
    """Carries out the jobs of such a flow.

    Args:
        desk: The steps that jobs share.
        sign: Signs requests.
    """

    def __init__(self, desk: Desk, sign: Signs) -> None:
        self._desk = desk
        self._sign = sign

    async def begin(self, job: Job, callback: str) -> Secret | Failure:
        """Asks for temporary credentials and stores them sealed; gives their token (RFC 5849, section 2.1)."""
        vault = self._desk.vault
        secrets = await self._desk.client_secrets(job)
        keys = await vault.prepare(
            job.workspace, job.connection, [RecordClass.CODE_VERIFIER], job.credential_grant, job.request_id
        )
        given = await self._send(job, job.endpoints.temporary, secrets, callback=callback)
        if isinstance(given, Failure):
            return given
        with oauth1_payload(given.token, given.secret) as payload, given.secret:
            record = vault.seal(keys[RecordClass.CODE_VERIFIER], self._desk.sealing(job), payload)
            await vault.put([record], [], job.credential_grant, job.request_id)
        return given.token

    async def exchange(self, job: Job, oauth_token: str, verifier: str) -> Outcome:
        """Exchanges a verifier (RFC 5849, section 2.3)."""
        # Step 1: preflight. What cannot be opened or written later is not begun.
        secrets = await self._desk.client_secrets(job)
        waiting = await self._desk.open(job, RecordClass.CODE_VERIFIER)
        vault, wanted = self._desk.vault, [RecordClass.OAUTH1]
        keys = await vault.prepare(job.workspace, job.connection, wanted, job.credential_grant, job.request_id)
        token, secret = oauth1_of(waiting.plaintext)
        with waiting.plaintext, token, secret:
            # Section 2.2: what comes back is of the credentials that this flow began with, or of none.
            if token != Secret(oauth_token.encode()):
                return Outcome("CALLBACK_TOKEN_DIFFERS")
            # Step 2: one request; nothing repeats it.
            given = await self._send(job, job.endpoints.token, secrets, pair=(token, secret), verifier=verifier)
        if isinstance(given, Failure):
            return Outcome(given.reason)
        # Step 3: seal and commit. The temporary credentials are used up.
        masked = mask(given.token)
        with oauth1_payload(given.token, given.secret) as payload, given.token, given.secret:
            record = vault.seal(keys[RecordClass.OAUTH1], self._desk.sealing(job, masked=masked), payload)
        ended = [(job.workspace, job.connection, RecordClass.CODE_VERIFIER)]
        await vault.put([record], ended, job.credential_grant, job.request_id)
        return Outcome("", job.scopes, metadata=given.metadata)

    async def _send(
        self,
        job: Job,
        url: str,
        secrets: Sequence[Secret | None],
        *,
        pair: tuple[Secret, Secret] | None = None,
        callback: str = "",
        verifier: str = "",
    ) -> TokenPair | Failure:
        """Sends a signed request; as the same client with its other secret, if the first is not taken."""
        answer: Answer | None = None
        try:
            for secret in secrets:
                client = Client(job.client_id, secret, job.endpoints.auth_method)
                signed = self._sign(
                    client, job.endpoints.dialect, "POST", url, pair=pair, callback=callback, verifier=verifier
                )
                headers: dict[str, Secret | str] = {"authorization": signed, "content-length": "0"}
                answer = await self._desk.egress.send("POST", url, headers, None, job.endpoints.pins)
                if answer.status != _UNAUTHORIZED:
                    break
        except AnswerLostError as error:
            return Failure(error.reason, retryable=True)
        except DomainError as error:
            return Failure(str(error.metadata.get("cause", error.reason)), retryable=True)
        finally:
            for secret in secrets:
                if secret is not None:
                    secret.destroy()
        if answer is None:
            raise AssertionError("Such a client has a secret.")
        return judge_token_pair(answer, self._desk.bodies.read_form(answer), job.endpoints.dialect)
