"""Serving: from an API key and a connection to the live credential. The main job, and the shortest way of the data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from authpipe_consumer.words import Opened, Want
from authpipe_envelope import IntegrityError, RecordClass
from authpipe_gateway_edge.domain.ports import Act, Authority, Coordinator, ServedRecords
from authpipe_gateway_edge.domain.words import Caller, Verdict, require_id
from authpipe_sensitive import DomainError, Secret, get_log

_KINDS = {
    RecordClass.ACCESS: "oauth2",
    RecordClass.OAUTH1: "oauth1",
    RecordClass.API_KEY: "api_key",
    RecordClass.BASIC: "basic",
    RecordClass.WEBHOOK_SECRET: "webhook_secret",
}
# A token that ends while it travels is of no use.
_TRAVEL = timedelta(seconds=5)
_NOTHING_STORED = "RECORD_NOT_FOUND"


class Served(NamedTuple):
    """The live credential.

    Args:
        connection: The connection.
        kind: oauth2, oauth1, api_key, basic or webhook_secret.
        payload: For oauth2, oauth1 and basic the JSON object to serve, else the bare value.
        expires_at: When it ends; None: it does not say.
        refresh: What became of the refresh that was asked for, while the token lives: pending, failing, or empty.
        refresh_failure: With failing: why.
    """

    connection: str
    kind: str
    payload: Secret
    expires_at: datetime | None
    refresh: str = ""
    refresh_failure: str = ""


class Serving:
    """Serves credentials.

    Args:
        authority: May I?
        records: Opens records.
        coordinator: Has tokens refreshed.
        clock: Gives the time, with zone.
    """

    def __init__(
        self,
        authority: Authority,
        records: ServedRecords,
        coordinator: Coordinator,
        clock: Callable[[], datetime],
    ) -> None:
        self._authority = authority
        self._records = records
        self._coordinator = coordinator
        self._clock = clock

    async def serve(self, caller: Caller, connection: str, min_ttl_seconds: int) -> Served:
        """Gives the live credential of a connection; refreshed first when it ended or would end too soon.

        A token that still lives is served whatever happens to its refresh.

        Raises:
            DomainError: Refused; the reason says why.
        """
        verdict = await self._authority.authorize(caller, Act.SERVE, require_id(connection))
        wanted = max(_TRAVEL, timedelta(seconds=min_ttl_seconds))
        try:
            opened = await self._open(verdict, connection, caller)
        except DomainError as error:
            if error.reason != _NOTHING_STORED:
                raise
            # A connection that asks for its tokens may have none yet; one that does not exist is told so there.
            await self._coordinator.ensure_fresh(
                verdict, connection, int(wanted.total_seconds()), force=False, request_id=caller.request_id
            )
            opened = await self._open(verdict, connection, caller)
        if opened.expires_at is not None and opened.expires_at - self._clock() <= wanted:
            opened.plaintext.destroy()
            fresh = await self._coordinator.ensure_fresh(
                verdict, connection, int(wanted.total_seconds()), force=False, request_id=caller.request_id
            )
            opened = await self._open(verdict, connection, caller)
            failing = fresh.connection.failing
            state = "pending" if fresh.pending else "failing" if failing else ""
        else:
            state, failing = "", None
        kind = _KINDS[opened.record_class]
        return Served(
            connection, kind, opened.plaintext, opened.expires_at, state, failing.reason if failing and state else ""
        )

    async def _open(self, verdict: Verdict, connection: str, caller: Caller) -> Opened:
        want = Want(verdict.workspace, connection, None, verdict.record_grant, caller.request_id)
        try:
            return await self._records.open_one(want)
        except IntegrityError:
            # keyservice released the key, so the header fits, and the rest does not: nobody else has seen it.
            try:
                await self._authority.report_violation(verdict, caller.request_id)
            except DomainError as error:
                get_log().error("integrity violation not on record", error=error)
            raise
