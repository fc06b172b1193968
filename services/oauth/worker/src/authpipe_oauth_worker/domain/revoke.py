"""Revocation: as RFC 7009 says, or in the Provider's own way (promise P11; case 26)."""

from __future__ import annotations

from collections.abc import Sequence

from authpipe_consumer.payloads import access_token_of
from authpipe_envelope import RecordClass
from authpipe_oauth_worker.domain.answers import Answer, Failure, judge_revocation
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.ports import Client
from authpipe_oauth_worker.domain.words import Job, Renewal
from authpipe_sensitive import DomainError, Secret

# What a Provider's own way answers for a token that it does not know any more.
_NOTHING_THERE = {404, 410, 422}
_CLASS_OF = {"refresh_token": RecordClass.REFRESH, "access_token": RecordClass.ACCESS}


class Revoke:
    """Carries out revocations.

    Args:
        desk: The steps that jobs share.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def revoke(self, job: Job) -> Failure | None:
        """Revokes a connection's tokens; None: done, or there is nothing to revoke or no way to.

        The refresh token first: at most Providers its access tokens end with it.
        """
        own = job.endpoints.dialect.revocation
        if not job.endpoints.revocation and own is None:
            return None
        secrets = await self._desk.client_secrets(job) if own is None or own.client else [None]
        worst: Failure | None = None
        taken = own.tokens if own is not None else ("refresh_token", "access_token")
        if job.renewal is not Renewal.REFRESH_TOKEN:
            # What stands in the place of a refresh token is nothing that this endpoint knows, and is not shown to it.
            taken = tuple(each for each in taken if each != "refresh_token")
        wanted = [(_CLASS_OF[hint], hint) for hint in taken]
        opened = await self._desk.vault.open([self._desk.want(job, each) for each, _ in wanted])
        for (record_class, hint), found in zip(wanted, opened, strict=True):
            if isinstance(found, DomainError):
                if found.reason == "RECORD_NOT_FOUND":
                    continue
                raise found
            self._desk.require_hosts(job, found)
            with found.plaintext:
                token = _token_of(record_class, found.plaintext)
                try:
                    failure = await self._one(job, token, hint, secrets)
                except DomainError as error:
                    return Failure(str(error.metadata.get("cause", error.reason)), retryable=True)
            if failure is not None and not (failure.reason == "UNSUPPORTED_TOKEN_TYPE" and hint == "access_token"):
                worst = failure
        return worst

    async def _one(self, job: Job, token: Secret, hint: str, secrets: Sequence[Secret | None]) -> Failure | None:
        """Revokes one token; as the same client with its other secret, if the first is not taken."""
        failure: Failure | None = None
        for secret in secrets:
            answer = await self._send(job, token, hint, secret)
            failure = judge_revocation(answer, self._desk.bodies.read(answer))
            if job.endpoints.dialect.revocation is not None and answer.status in _NOTHING_THERE:
                failure = None
            if failure is None or failure.reason != "INVALID_CLIENT":
                break
        return failure

    async def _send(self, job: Job, token: Secret, hint: str, secret: Secret | None) -> Answer:
        """Revokes one token as in RFC 7009, section 2.1, or in the Provider's own way."""
        own, pins, egress, bodies = (
            job.endpoints.dialect.revocation,
            job.endpoints.pins,
            self._desk.egress,
            self._desk.bodies,
        )
        if own is None:
            form: dict[str, Secret | str] = {"token": token, "token_type_hint": hint}
            client = Client(job.client_id, secret, job.endpoints.auth_method)
            return await egress.post_form(job.endpoints.revocation, form, client, pins=pins)
        named: dict[str, Secret | str] = {own.name or "token": token} if own.token_in != "bearer" else {}  # noqa: S105  # a place
        if own.client and own.method == "POST":
            client = Client(job.client_id, secret, f"client_secret_{own.client}")
            return await egress.post_form(own.url, named, client, json_body=own.token_in == "json", pins=pins)  # noqa: S105  # a place
        headers: dict[str, Secret | str] = {}
        if own.token_in == "bearer":  # noqa: S105  # a place
            headers["authorization"] = bodies.bearer(token)
        if own.client:
            headers["authorization"] = bodies.basic(job.client_id, secret)
        as_json = own.token_in == "json"  # noqa: S105  # a place
        headers["content-type"] = "application/json" if as_json else "application/x-www-form-urlencoded"
        body = bodies.form(named, as_json=as_json) if named else None
        return await egress.send(own.method, own.url, headers, body, pins)


def _token_of(record_class: RecordClass, plaintext: Secret) -> Secret:
    return plaintext.copy() if record_class is RecordClass.REFRESH else access_token_of(plaintext)
