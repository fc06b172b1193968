"""The device authorization grant (RFC 8628): a person agrees elsewhere, and meanwhile it is asked whether they have."""

from __future__ import annotations

from authpipe_envelope import RecordClass
from authpipe_oauth_worker.domain.answers import Began, Failure, judge_device, judge_tokens
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.words import Job, Outcome
from authpipe_sensitive import Secret

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# RFC 8628, section 3.5: it goes on.
_NOT_YET = {"AUTHORIZATION_PENDING", "PROVIDER_SLOW_DOWN", "PROVIDER_UNAVAILABLE"}


class Device:
    """Carries out the jobs of a device flow.

    Args:
        desk: The steps that jobs share.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def begin_device(self, job: Job) -> Began | Failure:
        """Asks for a device code and stores it sealed (RFC 8628, sections 3.1 and 3.2); gives what a person needs."""
        vault = self._desk.vault
        keys = await vault.prepare(
            job.workspace, job.connection, [RecordClass.CODE_VERIFIER], job.credential_grant, job.request_id
        )
        secrets = await self._desk.client_secrets(job)
        separator = job.endpoints.dialect.scope_separator
        form: dict[str, Secret | str] = {"client_id": job.client_id, "scope": separator.join(job.scopes)}
        answer = await self._desk.send(job, job.endpoints.device, form, secrets)
        if isinstance(answer, Failure):
            return answer
        began = judge_device(answer, self._desk.bodies.read(answer))
        if isinstance(began, Failure):
            return began
        with began.device_code:
            record = vault.seal(keys[RecordClass.CODE_VERIFIER], self._desk.sealing(job), began.device_code)
        await vault.put([record], [], job.credential_grant, job.request_id)
        return began

    async def poll_device(self, job: Job) -> Outcome:
        """Asks once whether the person has agreed (RFC 8628, sections 3.4 and 3.5)."""
        secrets = await self._desk.client_secrets(job)
        code = await self._desk.open(job, RecordClass.CODE_VERIFIER)
        keys = await self._desk.prepare(job)
        form: dict[str, Secret | str] = {
            **dict(job.endpoints.dialect.token_parameters),
            **self._desk.resource(job),
            "grant_type": _GRANT,
            "device_code": code.plaintext,
            "client_id": job.client_id,
        }
        with code.plaintext:
            answer = await self._desk.send(job, job.endpoints.token, form, secrets)
        if isinstance(answer, Failure):
            return Outcome(answer.reason)
        judged = judge_tokens(answer, self._desk.bodies.read(answer), job.endpoints.dialect)
        if isinstance(judged, Failure) and judged.reason in _NOT_YET:
            return Outcome(judged.reason, retry_after_seconds=answer.retry_after_seconds)
        return await self._desk.keep(job, answer, keys, [RecordClass.CODE_VERIFIER])
