"""What the rules need from outside, as Protocols: the tables, the worker, the stores, the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from authpipe_envelope import RecordClass
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    BegunDevice,
    Connection,
    DeviceFlow,
    Ending,
    Flow,
    Health,
    HealthOutcome,
    Lease,
    Left,
    Pairs,
    ProviderConfig,
    Renewal,
    RevokeOutcome,
    Session,
    State,
    TokenOutcome,
)
from authpipe_providers import Endpoints
from authpipe_sensitive import AuditEntry

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Job:
    """What every job says. The grants are signed for the key of the worker that gets it.

    Args:
        acting: On whose behalf.
        connection_id: The connection.
        config: The OAuth client.
        endpoints: As pinned when the flow began.
        purpose: What the credential grant is for.
        authenticate: Whether the job needs the client secret.
        fence: The fence of the lease; 0: none.
        forced: Whether it may come before it is due.
        scopes: The scopes asked for or granted before.
        spend: Whether a refresh token may be sent; else an answer that waits is judged, and that is all.
        spent_fence: The fence under which one was sent of which nobody knows what came; 0: there is none.
        values: What the placeholders of the URLs are filled with.
        renewal: How the next access token is come by.
        record_class: For a check: the class of the record.
    """

    acting: Acting
    connection_id: str
    config: ProviderConfig
    endpoints: Endpoints
    purpose: str
    authenticate: bool
    fence: int = 0
    forced: bool = False
    scopes: tuple[str, ...] = ()
    spend: bool = True
    spent_fence: int = 0
    values: Pairs = ()
    renewal: Renewal = Renewal.REFRESH_TOKEN
    record_class: RecordClass = RecordClass.ACCESS


class Worker(Protocol):
    """The worker, in our own words."""

    async def require_reachable(self) -> None:
        """Returns when a worker answers.

        Raises:
            DomainError: None does.
        """

    async def discover(self, issuer: str, request_id: str) -> Endpoints:
        """Gives a Provider's metadata."""

    async def prepare_flow(self, job: Job) -> tuple[str, str]:
        """Has a code verifier made and stored sealed, and a key; gives the challenge and the key's thumbprint."""

    async def begin_oauth1(self, job: Job, callback: str) -> tuple[str, str]:
        """Has temporary credentials asked for and stored sealed; gives why there are none, or their token."""

    async def exchange_code(self, job: Job, code: str, redirect_uri: str, oauth_token: str = "") -> TokenOutcome:
        """Has a code exchanged and the answer stored; with OAuth 1.0a the code is a verifier, of the token that came back."""

    async def push_authorization(self, job: Job, parameters: Mapping[str, str]) -> tuple[str, str]:
        """Has an authorization request pushed; gives why it was not taken, or what the browser carries in its place."""

    async def begin_device(self, job: Job) -> BegunDevice:
        """Has a device code asked for and stored sealed."""

    async def poll_device(self, job: Job) -> TokenOutcome:
        """Has it asked once whether a person has agreed."""

    async def check(self, job: Job, *, rotation: bool) -> HealthOutcome:
        """Has a credential tried."""

    async def refresh(self, job: Job) -> TokenOutcome:
        """Has a token refreshed and the answer stored."""

    async def revoke(self, job: Job) -> RevokeOutcome:
        """Has a connection's tokens revoked."""

    async def reseal(self, acting: Acting, target: str, classes: Sequence[RecordClass], fence: int) -> int:
        """Has records sealed again under their newest key version; gives how many were not."""


class Records(Protocol):
    """A store, in our own words."""

    async def withhold(self, workspace: str, connection: str, request_id: str) -> None:
        """Stops serving."""

    async def delete(self, workspace: str, connection: str, request_id: str) -> None:
        """Erases."""

    async def keep(self, workspace: str, connection: str, until: datetime, request_id: str) -> None:
        """Keeps it sealed, to be taken back until then."""

    async def restore(self, grant: str, request_id: str) -> None:
        """Takes back what was kept, under a grant for that."""


class AuditLog(Protocol):
    """The audit log."""

    async def require_reachable(self) -> None:
        """Returns when the log takes events now.

        Raises:
            AuditUnavailableError: It does not.
        """


class ConfigStore(Protocol):
    """Provider configurations. Every change is one transaction with its event."""

    async def add_draft_config(self, config: ProviderConfig, entry: AuditEntry) -> None:
        """Stores a draft."""

    async def activate_config(self, workspace: str, config_id: str, entry: AuditEntry) -> ProviderConfig | None:
        """Makes a draft usable."""

    async def get_config(self, workspace: str, config_id: str) -> ProviderConfig | None:
        """Gives a usable provider configuration."""

    async def list_configs(self, workspace: str, limit: int, after: str) -> list[ProviderConfig]:
        """Gives usable provider configurations, by id."""

    async def update_config(self, config: ProviderConfig, entry: AuditEntry) -> None:
        """Stores name, scopes and redirect URIs."""

    async def change_secrets(
        self, config: ProviderConfig, classes: tuple[int, ...], entry: AuditEntry
    ) -> ProviderConfig | None:
        """Stores which client secrets are in use; None: others were, meanwhile."""

    async def delete_config(self, workspace: str, config_id: str, entry: AuditEntry) -> bool:
        """Deletes a provider configuration without connections; False: it has some."""

    async def forsaken_configs(self) -> list[ProviderConfig]:
        """Gives drafts that nobody activated, and deleted ones whose client secret was not erased yet."""

    async def close_forsaken(self, workspace: str, config_id: str, entry: AuditEntry) -> bool:
        """Makes a draft a deleted one; False: it was activated meanwhile."""

    async def note_secret_erased(self, workspace: str, config_id: str, entry: AuditEntry) -> None:
        """Remembers that nothing is left of its client secret."""


class FlowStore(Protocol):
    """Connect sessions and flows. Every change is one transaction with its event."""

    async def add_session(self, session_hash: bytes, session: Session, entry: AuditEntry) -> None:
        """Stores a connect session."""

    async def get_session(self, session_hash: bytes) -> Session | None:
        """Gives a connect session."""

    async def add_flow(self, state_hash: bytes, flow: Flow, entry: AuditEntry) -> None:
        """Stores a flow."""

    async def use_flow(self, state_hash: bytes, entry: Callable[[Flow], AuditEntry]) -> Flow | None:
        """Uses a state up, atomically and with its event, and gives its flow; None: unknown or used."""

    async def abandoned_flows(self) -> list[Flow]:
        """Gives flows that ended a while ago without a callback."""

    async def end_flow(self, flow: Flow, entry: AuditEntry) -> None:
        """Uses up the state of a flow that nobody came back to."""


class ConnectionStore(Protocol):
    """Connections. Every change is one transaction with its event."""

    async def add_connection(self, connection: Connection, entry: AuditEntry) -> None:
        """Stores a connection."""

    async def get_connection(self, workspace: str, connection_id: str) -> Connection | None:
        """Gives a connection, drafts too."""

    async def list_connections(self, workspace: str, end_user_id: str, limit: int, before: str) -> list[Connection]:
        """Gives connections that are no drafts, newest first."""

    async def activate(
        self, workspace: str, connection_id: str, outcome: TokenOutcome, due: datetime | None, entry: AuditEntry
    ) -> Connection | None:
        """Makes a draft active, to be refreshed when it is due."""

    async def move(
        self,
        workspace: str,
        connection_id: str,
        sources: tuple[State, ...],
        target: State,
        reason: str,
        entry: AuditEntry,
        keep_until: datetime | None = None,
    ) -> bool:
        """Moves a connection to another state; False: it is in none of the source states."""

    async def note_health(
        self,
        connection: Connection,
        health: Health,
        due: datetime | None,
        rotate_at: datetime | None,
        entry: AuditEntry,
    ) -> None:
        """Stores what came of a check, and when the next one is due; None: there is none."""

    async def unfinished(self, older_than_seconds: float) -> list[Connection]:
        """Gives disconnecting connections, abandoned drafts, and what was kept for long enough."""

    async def postpone(
        self, workspace: str, connection_id: str, reason: str, attempts: int, due: datetime, entry: AuditEntry
    ) -> None:
        """Leaves a disconnect for later: why, after how many attempts, and until when."""

    async def note(self, entry: AuditEntry) -> None:
        """Makes an event durable on its own: a refusal."""


class DeviceStore(Protocol):
    """Device flows. Every change is one transaction with its event."""

    async def add_device(self, flow: DeviceFlow, draft: Connection, entry: AuditEntry) -> None:
        """Stores a flow and the draft of its connection."""

    async def get_device(self, workspace: str, connection_id: str) -> DeviceFlow | None:
        """Gives a flow."""

    async def claim_devices(self, most: int) -> list[DeviceFlow]:
        """Takes up flows that may be asked about now; they may not again before their interval is over."""

    async def note_device(self, flow: DeviceFlow) -> None:
        """Stores how far a flow is, and its interval."""


# A lease that is held: workspace, connection, fence.
Held = tuple[str, str, int]


class LeaseStore(Protocol):
    """Leases. Every change is one transaction with its event."""

    async def acquire_lease(
        self, workspace: str, connection_id: str, holder: str, seconds: float, entry: AuditEntry
    ) -> Lease | None:
        """Takes the lease with a new fence, with its event; None: another holder lives."""

    async def note_left(self, workspace: str, connection_id: str, fence: int, left: Left) -> bool:
        """Writes down what is left if this process dies now; False: somebody else has the lease."""

    async def get_left(self, workspace: str, connection_id: str) -> Left:
        """Gives what the last refresh of a connection has left."""

    async def extend_leases(self, held: Sequence[Held], seconds: float) -> set[Held]:
        """Heartbeat; gives those that are still ours."""

    async def end_lease(
        self,
        workspace: str,
        connection_id: str,
        fence: int,
        ending: Ending,
        entry: AuditEntry | None,
    ) -> None:
        """Gives the lease back, with what came of it. Whoever has been passed over changes nothing but leaves its event."""
