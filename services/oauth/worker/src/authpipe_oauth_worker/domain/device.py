"""The device authorization grant (RFC 8628): a person agrees elsewhere, and meanwhile it is asked whether they have."""

from __future__ import annotations

from contextlib import nullcontext

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
        vault, desk = self._desk.vault, self._desk
        key = None
        if job.endpoints.dpop:
            there = await desk.open_key(job)
            if there is None:
                key = desk.proofs.new_key()
            else:
                # One that is there stays: the token that is served until this flow ends is bound to it.
                there.destroy()
        with key or nullcontext():
            wanted = [RecordClass.CODE_VERIFIER, *([RecordClass.DPOP_KEY] if key is not None else [])]
            keys = await vault.prepare(job.workspace, job.connection, wanted, job.credential_grant, job.request_id)
            secrets = await desk.client_secrets(job)
            separator = job.endpoints.dialect.scope_separator
            form: dict[str, Secret | str] = {"client_id": job.client_id, "scope": separator.join(job.scopes)}
            answer = await desk.send(job, job.endpoints.device, form, secrets)
            if isinstance(answer, Failure):
                return answer
            began = judge_device(answer, desk.bodies.read(answer))
            if isinstance(began, Failure):
                return began
            with began.device_code:
                records = [vault.seal(keys[RecordClass.CODE_VERIFIER], desk.sealing(job), began.device_code)]
            if key is not None:
                records.append(vault.seal(keys[RecordClass.DPOP_KEY], desk.sealing(job), key))
            await vault.put(records, [], job.credential_grant, job.request_id)
        return began

    async def poll_device(self, job: Job) -> Outcome:
        """Asks once whether the person has agreed (RFC 8628, sections 3.4 and 3.5)."""
        secrets = await self._desk.client_secrets(job)
        code = await self._desk.open(job, RecordClass.CODE_VERIFIER)
        key = await self._desk.open_key(job)
        keys = await self._desk.prepare(job)
        form: dict[str, Secret | str] = {
            **dict(job.endpoints.dialect.token_parameters),
            **self._desk.resource(job),
            "grant_type": _GRANT,
            "device_code": code.plaintext,
            "client_id": job.client_id,
        }
        with code.plaintext, key or nullcontext():
            answer = await self._desk.send(job, job.endpoints.token, form, secrets, key)
        if isinstance(answer, Failure):
            return Outcome(answer.reason)
        judged = judge_tokens(answer, self._desk.bodies.read(answer), job.endpoints.dialect, bound=job.endpoints.dpop)
        if isinstance(judged, Failure) and judged.reason in _NOT_YET:
            return Outcome(judged.reason, retry_after_seconds=answer.retry_after_seconds)
        return await self._desk.keep(job, answer, keys, [RecordClass.CODE_VERIFIER])
