"""What edge needs from behind it, as Protocols."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from authpipe_consumer.words import Opened, Want
from authpipe_gateway_edge.domain.logged import EventFilter, Events, Export, Incident
from authpipe_gateway_edge.domain.people import Invitation, Members, Session
from authpipe_gateway_edge.domain.words import (
    Arrived,
    Caller,
    Choice,
    Connection,
    DeviceFlow,
    Freshness,
    NewConnection,
    NewProviderConfig,
    Pairs,
    Provable,
    Provider,
    ProviderConfig,
    ProxyRoute,
    Rotation,
    Verdict,
    WebhookScheme,
)
from authpipe_sensitive import Secret


class Act(IntEnum):
    """What a customer asks to do, by the numbers of authpipe.authority.v1.Act."""

    SERVE = 1
    REFRESH = 2
    READ_CONNECTIONS = 3
    IMPORT_CONNECTION = 4
    DISCONNECT = 5
    CREATE_CONNECT_SESSION = 6
    READ_PROVIDER_CONFIGS = 7
    CONFIGURE_PROVIDER = 8
    READ_AUDIT = 9
    DRAFT_CONNECTION = 10
    DRAFT_PROVIDER_CONFIG = 11
    DESCRIBE_PROVIDER = 12
    PROXY = 13
    PROXY_REFRESH = 14
    VERIFY_WEBHOOK = 15
    CHECK_HEALTH = 16
    RECONNECT = 17
    ERASE_END_USER = 18
    PLACE_DECOY = 19
    ROTATE = 20
    REVOKE_API_KEYS = 21
    FREEZE = 22
    READ_MEMBERS = 23
    INVITE_MEMBER = 24
    CHANGE_MEMBER_ROLE = 25
    REMOVE_MEMBER = 26


class Authority(Protocol):
    """authority: may I?"""

    async def authorize(
        self, caller: Caller, act: Act, target: str, classes: Sequence[int] = (), worker_thumbprint: str = ""
    ) -> Verdict:
        """Gives the verdict on an act.

        Raises:
            DomainError: It was refused.
        """

    def forget(self) -> None:
        """Drops what is remembered of verdicts: access was taken away."""

    async def revoke_api_keys(self, verdict: Verdict, request_id: str, *, dry_run: bool) -> int:
        """Has all API keys of the workspace revoked; gives how many were active."""

    async def freeze(self, verdict: Verdict, request_id: str, *, dry_run: bool) -> bool:
        """Has the workspace frozen; says whether it was already."""

    async def report_violation(self, verdict: Verdict, request_id: str) -> None:
        """Has it put on record that a record did not open here.

        Raises:
            DomainError: It could not be.
        """


class ServedRecords(Protocol):
    """vault, for what is served: all requests of the moment share one rpc."""

    async def open_one(self, want: Want) -> Opened:
        """Opens a record.

        Raises:
            DomainError: It was refused.
        """


class Masked(Protocol):
    """A store's masked prefixes."""

    async def masked(self, verdict: Verdict, ids: Sequence[str], classes: Sequence[int] = ()) -> dict[str, str]:
        """Gives the masked prefix of each that has a record: of these classes, or of what may be served."""


class ProvingWorker(Protocol):
    """The worker, as far as it makes proofs of keys."""

    async def thumbprint(self, *, anew: bool) -> str:
        """Gives the thumbprint of its HPKE key."""

    async def prove_key(
        self,
        route: ProxyRoute,
        verdict: Verdict,
        connection_id: str,
        wanted: Provable,
        request_id: str,
        thumbprint: str,
    ) -> Secret:
        """Has the proof for one request made."""


class WebhookWorker(Protocol):
    """The worker, as far as it compares signatures."""

    async def thumbprint(self, *, anew: bool) -> str:
        """Gives the thumbprint of its HPKE key."""

    async def verify_webhook(
        self,
        verdict: Verdict,
        connection_id: str,
        scheme: WebhookScheme,
        arrived: Arrived,
        request_id: str,
        thumbprint: str,
    ) -> str:
        """Says why what came is not believed; empty: it is."""


class Coordinator(Protocol):
    """coordinator, in our own words."""

    async def draft_config(self, verdict: Verdict, new: NewProviderConfig, request_id: str) -> ProviderConfig: ...
    async def activate_config(self, verdict: Verdict, config_id: str, request_id: str) -> ProviderConfig: ...
    async def get_config(self, verdict: Verdict, config_id: str) -> ProviderConfig: ...
    async def list_configs(self, verdict: Verdict, size: int, token: str) -> tuple[list[ProviderConfig], str]: ...
    async def update_config(
        self, verdict: Verdict, config_id: str, scopes: Sequence[str], uris: Sequence[str], name: str, request_id: str
    ) -> ProviderConfig: ...
    async def activate_secret(
        self, verdict: Verdict, config_id: str, record_class: int, request_id: str
    ) -> ProviderConfig: ...
    async def retire_secret(self, verdict: Verdict, config_id: str, request_id: str) -> tuple[ProviderConfig, int]: ...
    async def begin_device(
        self, verdict: Verdict, config_id: str, end_user_id: str, values: Pairs, request_id: str
    ) -> DeviceFlow: ...
    async def device(self, verdict: Verdict, connection_id: str) -> DeviceFlow: ...
    async def webhook_scheme(self, verdict: Verdict, connection_id: str) -> WebhookScheme | None: ...
    async def check(self, verdict: Verdict, connection_id: str, request_id: str) -> Connection: ...
    async def reconnect(self, verdict: Verdict, connection_id: str, request_id: str) -> Connection: ...
    async def delete_config(self, verdict: Verdict, config_id: str, request_id: str) -> None: ...
    async def create_session(
        self,
        verdict: Verdict,
        end_user_id: str,
        config_ids: Sequence[str],
        values: Pairs,
        connection_id: str,
        request_id: str,
    ) -> tuple[str, datetime]: ...
    async def list_providers(self, verdict: Verdict) -> list[Provider]: ...
    async def get_provider(self, verdict: Verdict, name: str) -> str: ...
    async def add_provider(self, verdict: Verdict, document: str, request_id: str) -> Provider: ...
    async def delete_provider(self, verdict: Verdict, name: str, request_id: str) -> None: ...
    async def choices(self, session: str) -> list[Choice]: ...
    async def begin(  # each is needed
        self, session: str, config_id: str, binding: bytes, redirect_uri: str, request_id: str, values: Pairs
    ) -> str: ...
    async def complete(
        self, state: str, binding: bytes, code: str, iss: str, oauth_token: str, *, denied: bool, request_id: str
    ) -> str: ...
    async def draft_connection(
        self, verdict: Verdict, new: NewConnection, request_id: str
    ) -> tuple[str, str, bytes]: ...
    async def activate_connection(
        self, verdict: Verdict, connection_id: str, new: NewConnection, request_id: str
    ) -> Connection: ...
    async def get_connection(self, verdict: Verdict, connection_id: str) -> Connection: ...
    async def list_connections(
        self, verdict: Verdict, end_user_id: str, size: int, token: str
    ) -> tuple[list[Connection], str]: ...
    async def ensure_fresh(
        self, verdict: Verdict, connection_id: str, min_ttl_seconds: int, *, force: bool, request_id: str
    ) -> Freshness: ...
    async def proxy_route(self, verdict: Verdict, connection_id: str, worker_thumbprint: str) -> ProxyRoute: ...
    async def disconnect(self, verdict: Verdict, connection_id: str, keep_days: int, request_id: str) -> Connection: ...
    async def erase_end_user(self, verdict: Verdict, end_user_id: str, request_id: str) -> int: ...


class AuditLog(Protocol):
    """audit, in our own words."""

    async def list_events(self, verdict: Verdict, filters: EventFilter) -> Events:
        """Gives a page of events, newest first."""

    async def export(self, verdict: Verdict, wanted: Export, cursor: str) -> tuple[bytes, str]:
        """Gives lines of an export, and where they ended; empty: that was all."""

    async def add_cosignatures(self, trail: str, size: int, signatures: str) -> int:
        """Brings what witnesses have cosigned; gives how many of it is kept."""

    async def checkpoint(self, trail: str, *, is_pending: bool) -> str:
        """Gives a trail's newest checkpoint; or the newest that is signed, also when witnesses are waited for."""

    async def tile(self, trail: str, path: str) -> bytes:
        """Gives a tile or an entry bundle of a trail."""


class Rotations(Protocol):
    """coordinator, for the day on which something is stolen."""

    async def place_decoy(self, verdict: Verdict, connection_id: str, request_id: str) -> None:
        """Makes a connection a decoy."""

    async def begin(
        self, verdict: Verdict, connection_id: str, config_id: str, request_id: str, *, dry_run: bool
    ) -> Rotation:
        """Begins to rotate tokens."""

    async def get(self, verdict: Verdict, rotation_id: str) -> Rotation:
        """Says how far a rotation is."""


class Incidents(Protocol):
    """audit, for what was found in the log."""

    async def list_incidents(
        self, verdict: Verdict, *, open_only: bool, size: int, token: str
    ) -> tuple[list[Incident], str]:
        """Gives a page of incidents, newest first."""

    async def get(self, verdict: Verdict, incident_id: str) -> Incident:
        """Gives an incident with its evidence."""


class Membership(Protocol):
    """authority, for a workspace's members."""

    async def invite(self, verdict: Verdict, email: str, role: str, request_id: str) -> Invitation:
        """Invites somebody."""

    async def list_members(self, verdict: Verdict) -> Members:
        """Gives the members."""

    async def change_role(self, verdict: Verdict, member_id: str, role: str, request_id: str) -> None:
        """Gives a member another role."""

    async def remove(self, verdict: Verdict, member_id: str, request_id: str) -> None:
        """Removes a member."""


class SignIn(Protocol):
    """authority, for passkeys and sessions. Options and answers are Web Authentication's JSON, which edge does not read."""

    async def begin_joining(self, invitation: Secret, request_id: str, source: str) -> str:
        """Gives what a passkey is made by."""

    async def finish_joining(self, invitation: Secret, credential: str, request_id: str, source: str) -> Session:
        """Gives the session of somebody who has joined."""

    async def begin_sign_in(self) -> str:
        """Gives what a passkey is to sign."""

    async def finish_sign_in(self, credential: str, request_id: str, source: str) -> Session:
        """Gives the session of somebody who has signed in."""

    async def sign_out(self, session: Secret, request_id: str, source: str) -> None:
        """Ends a session."""
