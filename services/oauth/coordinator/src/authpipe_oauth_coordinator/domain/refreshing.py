"""One refresh of one connection: under a lease, written down before its token is sent, whatever dies meanwhile (promise P36)."""

from __future__ import annotations

from functools import partial
import asyncio
import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta

from authpipe_oauth_coordinator.domain.leasing import Leasing
from authpipe_oauth_coordinator.domain.ports import AuditLog, Clock, ConfigStore, ConnectionStore, Job, Worker
from authpipe_oauth_coordinator.domain.due import due_at, failed
from authpipe_oauth_coordinator.domain.failures import Cure, meaning
from authpipe_oauth_coordinator.domain.unfinished import SETTLING, Spending, decide, left_by
from authpipe_oauth_coordinator.domain.words import (
    audit_entry,
    provider_word,
    Acting,
    Connection,
    Ending,
    Lease,
    Left,
    ProviderConfig,
    State,
    TokenOutcome,
    Unfinished,
)
from authpipe_oauth_coordinator.errors import NotFoundError, RefreshFailedError
from authpipe_sensitive import DomainError, Label, Status, get_log

_WAIT_SECONDS = 0.1
_GIVE_UP = timedelta(seconds=30)
_LOST = "REFRESH_ANSWER_LOST"
# What fails here for our own sake with nothing of ours away.
_NO_TROUBLE = {"", "ANSWER_AWAITED", "LEASE_HELD_ELSEWHERE"}
# What a token that came with a refresh of which nobody heard the end has to live to be taken for its outcome.
_WORTH_SERVING = timedelta(minutes=1)
_entry = partial(audit_entry, purpose="refresh")


class Refreshing:
    """The rules over one refresh.

    Args:
        configs: The table of provider configurations.
        connections: The table of connections.
        leasing: Leases of connections.
        worker: The worker.
        audit: The audit log.
        clock: Gives the time, with zone.
        spool_patience: For how long an answer on a worker's disk is waited for.
        jitter: Gives a random number from 0 to 1.
    """

    def __init__(
        self,
        configs: ConfigStore,
        connections: ConnectionStore,
        leasing: Leasing,
        worker: Worker,
        audit: AuditLog,
        clock: Clock,
        spool_patience: timedelta,
        jitter: Callable[[], float],
    ) -> None:
        self._configs = configs
        self._connections = connections
        self._leasing = leasing
        self._worker = worker
        self._audit = audit
        self._clock = clock
        self._spool_patience = spool_patience
        self._jitter = jitter
        self._going: dict[tuple[str, str], asyncio.Task[None]] = {}
        # Nobody knows what was away before this process began.
        self._troubled_at = clock()

    def note_trouble(self) -> None:
        """Says that something of our own is away just now: answers may wait that nobody could take."""
        self._troubled_at = self._clock()

    async def once(self, acting: Acting, connection: Connection, *, forced: bool) -> None:
        """Refreshes a connection; however many callers ask, they share one task in this process.

        Raises:
            RefreshFailedError: It was not refreshed; the metadata says why.
        """
        key = (connection.workspace, connection.id)
        task = self._going.get(key)
        if task is None:
            task = asyncio.create_task(self._under_lease(acting, connection, forced=forced), name="refresh")
            self._going[key] = task
            task.add_done_callback(lambda _: self._going.pop(key, None))
        # Shielded: a caller that gives up must not end a refresh whose token may be spent already.
        await asyncio.shield(task)

    async def _under_lease(self, acting: Acting, connection: Connection, *, forced: bool) -> None:
        try:
            await self._refresh(acting, connection, forced=forced)
        except DomainError as error:
            if error.status is Status.UNAVAILABLE and not isinstance(error, RefreshFailedError):
                self.note_trouble()
            raise

    async def _refresh(self, acting: Acting, connection: Connection, *, forced: bool) -> None:
        workspace, connection_id = connection.workspace, connection.id
        # Step 1: preflight. Anything missing: the Provider is not called (case 24).
        config = await client_of(self._configs, connection)
        if config is None:
            raise NotFoundError
        await self._audit.require_reachable()
        await self._worker.require_reachable()
        # Step 2: the lease, with its event, in one transaction.
        lease = await self._acquire(acting, connection)
        if lease is None:
            return
        # Step 3: what the refresh before has left says whether the token may be sent.
        now, settled = self._clock(), self._clock() - self._troubled_at >= SETTLING
        spending = decide(lease.left, config, connection.renewal, now, self._spool_patience, settled=settled)
        # Step 4: one call to the Provider, under a heartbeat: a Provider that takes 30 s sees one request, not two.
        job = Job(
            acting,
            connection_id,
            config,
            config.endpoints,
            purpose="refresh",
            authenticate=config.endpoints.auth_method != "none",
            fence=lease.fence,
            forced=forced,
            scopes=connection.scopes,
            spent_fence=lease.left.fence,
            values=connection.values,
            renewal=connection.renewal,
        )
        with self._leasing.kept(workspace, connection_id, lease.fence):
            outcome, left, retried = await self._carry_out(job, lease, spending)
        # Step 5: what came of it, with its event, and the lease back.
        failure = outcome.failure
        reauth = failure if meaning(failure).cure is Cure.END_USER else ""
        if reauth and retried:
            # The Provider had seen the token: the answer is lost, and nobody did anything wrong.
            reauth = _LOST
        await self._end(acting, connection, lease, left, outcome, reauth=reauth)
        if failure:
            raise RefreshFailedError(cause=Label(failure))

    async def _carry_out(self, job: Job, lease: Lease, spending: Spending) -> tuple[TokenOutcome, Left, bool]:
        """Looks for an answer, or sends the token; gives what came of it, what is left, and whether it was sent once more."""
        before = lease.left
        if spending is not Spending.SEND:
            # However long ago it was: a refresh that had come to its end must not be taken for one that was lost.
            outcome = await self._call(dataclasses.replace(job, spend=False))
            match outcome.failure, spending:
                case "REFRESH_TOKEN_NEWER", _ if not job.forced and self._lives(outcome.expires_at):
                    # Nobody heard of its end: who had the lease stopped, or died. It is as good now.
                    return TokenOutcome("", (), outcome.expires_at, refreshable=True), Left(), False
                case "REFRESH_TOKEN_NEWER", _:
                    # The token that is stored is not the one that may be spent.
                    before, spending = Left(), Spending.SEND
                case "ANSWER_AWAITED", Spending.RETRY:
                    pass
                case "ANSWER_AWAITED", Spending.GIVE_UP:
                    return TokenOutcome(_LOST), Left(), False
                case _:
                    return outcome, left_by(outcome, before, before), False
        again = spending is Spending.RETRY
        now = self._clock()
        meanwhile = Left(
            Unfinished.SPENT,
            lease.fence,
            before.since or now,
            before.retries + again,
            now if again else before.again_at,
        )
        # That it is about to be sent is written down before it is.
        if not await self._leasing.note_left(job.acting.workspace, job.connection_id, lease.fence, meanwhile):
            return TokenOutcome("LEASE_HELD_ELSEWHERE", nothing_sent=True), before, False
        outcome = await self._call(job)
        return outcome, left_by(outcome, before, meanwhile), again

    def _lives(self, expires_at: datetime | None) -> bool:
        return expires_at is not None and expires_at - self._clock() > _WORTH_SERVING

    async def _call(self, job: Job) -> TokenOutcome:
        try:
            outcome = await self._worker.refresh(job)
            if meaning(outcome.failure).cure is Cure.OURSELVES and outcome.failure not in _NO_TROUBLE:
                self.note_trouble()
            return outcome
        except DomainError as error:
            self.note_trouble()
            # A worker says in its outcome what it knows. It did not: it may have died after the token was sent.
            get_log().warning("a refresh did not come back", error=error)
            return TokenOutcome("PROVIDER_ANSWER_LOST" if job.spend else error.reason, nothing_sent=not job.spend)

    async def _acquire(self, acting: Acting, connection: Connection) -> Lease | None:
        """Takes the lease; None: somebody else has refreshed meanwhile, or there is nothing to refresh any more."""
        workspace, connection_id, began = connection.workspace, connection.id, connection.refreshed_at
        give_up = self._clock() + _GIVE_UP
        while True:
            entry = _entry("REFRESH_BEGUN", acting, connection_id)
            lease = await self._leasing.acquire(workspace, connection_id, entry)
            current = await self._connections.get_connection(workspace, connection_id)
            if current is None or current.refreshed_at > began or current.state is not State.ACTIVE:
                if lease is not None:
                    await self._leasing.end(workspace, connection_id, lease.fence)
                return None
            if lease is not None:
                return lease
            if self._clock() > give_up:
                raise RefreshFailedError(cause=Label("LEASE_HELD_ELSEWHERE"))
            await asyncio.sleep(_WAIT_SECONDS)

    async def _end(
        self, acting: Acting, connection: Connection, lease: Lease, left: Left, outcome: TokenOutcome, *, reauth: str
    ) -> None:
        failure = outcome.failure
        entry = _entry("REFRESH_FAILED" if failure else "TOKEN_REFRESHED", acting, connection.id, reason=failure)
        entry = entry._replace(provider=provider_word(connection.provider))
        now, jitter = self._clock(), self._jitter()
        if failure:
            failing, due = failed(now, connection.failing, failure, outcome.retry_after_seconds, jitter)
            ending = Ending(None, reauth, left, due, failing)
        else:
            ending = Ending(outcome, left=left, due=due_at(now, outcome.expires_at, jitter))
        await self._leasing.end(connection.workspace, connection.id, lease.fence, ending, entry)


async def client_of(configs: ConfigStore, connection: Connection) -> ProviderConfig | None:
    """Gives the OAuth client of a connection; one that has none of its own stands as its Provider's entry describes it."""
    if connection.provider_config_id:
        return await configs.get_config(connection.workspace, connection.provider_config_id)
    entry = connection.entry
    if entry is None or entry.endpoints is None:
        return None
    return ProviderConfig(
        connection.workspace,
        "",
        connection.provider,
        entry.display_name,
        "",
        (),
        (),
        entry.endpoints,
        connection.hosts,
        connection.created_at,
        entry,
        (),
    )
