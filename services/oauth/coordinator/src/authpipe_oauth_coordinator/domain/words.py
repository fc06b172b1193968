"""The objects of the broker: provider configurations, connections, flows; parsed once, frozen."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from authpipe_envelope import RecordClass
from authpipe_providers import Endpoints, Entry
from authpipe_sensitive import AuditEntry

_WORD = re.compile(r"[a-z0-9._:/-]{1,96}", re.ASCII)
Pairs = tuple[tuple[str, str], ...]


class State(enum.Enum):
    """States of a connection.

    draft → active ⇄ needs_reauth; each of them → disconnecting → disconnected, from where nothing returns; or → kept,
    which can be taken back until it is over: kept → active, kept → disconnecting. A draft is seen by nobody; one that is
    left is swept. In disconnecting nothing is served and only revocation is possible; in kept nothing opens at all.
    """

    DRAFT = "draft"
    ACTIVE = "active"
    NEEDS_REAUTH = "needs_reauth"
    DISCONNECTING = "disconnecting"
    DISCONNECTED = "disconnected"
    KEPT = "kept"


class Kind(enum.Enum):
    """Kinds of credential."""

    OAUTH2 = "oauth2"
    OAUTH1 = "oauth1"
    API_KEY = "api_key"
    BASIC = "basic"
    WEBHOOK_SECRET = "webhook_secret"  # the name of a kind  # noqa: S105  # the name of a kind


class Renewal(enum.Enum):
    """How a connection comes to its next access token. With all but REFRESH_TOKEN it is asked for as often as one likes."""

    REFRESH_TOKEN = "refresh_token"  # noqa: S105  # the name of a grant
    CLIENT_CREDENTIALS = "client_credentials"
    JWT_BEARER = "jwt_bearer"
    TOKEN_EXCHANGE = "token_exchange"  # noqa: S105  # the name of a grant
    TWO_STEP = "two_step"


class Unfinished(enum.Enum):
    """What is known of the last refresh of a connection.

    NOTHING: it ended; or there was none. SPENT: its refresh token may have been spent, and no answer is known of.
    SPOOLED: the Provider has answered, and the sealed answer waits on a worker's disk.
    """

    NOTHING = ""
    SPENT = "spent"
    SPOOLED = "spooled"


class Left(NamedTuple):
    """What a refresh that did not end has left.

    Args:
        unfinished: What is known of it.
        fence: The fence under which its token was sent; 0: nothing was left.
        since: Since when it is not known what came of it; None: nothing was left.
        retries: How often it was carefully sent once more since, without an answer.
        again_at: When it was, the last time; None: it was not.
    """

    unfinished: Unfinished = Unfinished.NOTHING
    fence: int = 0
    since: datetime | None = None
    retries: int = 0
    again_at: datetime | None = None


class Lease(NamedTuple):
    """A lease as it was taken.

    Args:
        fence: Its fencing number.
        left: What the refresh before has left.
    """

    fence: int
    left: Left = Left()


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """Our OAuth client at a Provider; its secrets are in clientsecrets, under `secret_classes`, the newest first.

    `endpoints` and `entry` are pinned when it is made. Their URLs may be templates, filled by each connection's values. Where they
    were `discovered` they are fetched again, from time to time. A `notice` is what its owner should know, a word of a closed
    list: HOSTS_CHANGED: the Provider's metadata leads to other hosts, to which nothing is sent.
    """

    workspace: str
    id: str
    provider: str
    display_name: str
    client_id: str
    scopes: tuple[str, ...]
    redirect_uris: tuple[str, ...]
    endpoints: Endpoints
    hosts: bytes
    created_at: datetime
    entry: Entry = Entry("", "")
    secret_classes: tuple[int, ...] = (int(RecordClass.CLIENT_SECRET),)
    discovered: bool = False
    notice: str = ""
    noticed_at: datetime | None = None


class Health(NamedTuple):
    """What came of trying a credential.

    Args:
        state: passing, failing or unknown.
        reason: Why; empty while passing.
        at: When it was tried last.
        refusals: How often in a row its Provider said that it is not good, and was believed.
        ever_passed: Whether it was good once.
    """

    state: str
    reason: str
    at: datetime
    refusals: int = 0
    ever_passed: bool = False


class Failing(NamedTuple):
    """That the refreshes of a connection fail.

    Args:
        reason: Why the last one did, a stable reason.
        since: Since when they do.
        attempts: How many did in a row.
        not_before: Until when nobody who merely asks for the token makes another one.
    """

    reason: str
    since: datetime
    attempts: int
    not_before: datetime


@dataclass(frozen=True, slots=True)
class Connection:
    """One end user's link to one Provider."""

    workspace: str
    id: str
    state: State
    state_reason: str
    state_at: datetime
    kind: Kind
    provider: str
    provider_config_id: str
    end_user_id: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    refreshable: bool
    hosts: bytes
    refreshed_at: datetime
    created_at: datetime
    refresh_due_at: datetime | None = None
    failing: Failing | None = None
    values: Pairs = ()
    metadata: Pairs = ()
    entry: Entry | None = None
    renewal: Renewal = Renewal.REFRESH_TOKEN
    health: Health | None = None
    rotate_at: datetime | None = None
    keep_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeviceFlow:
    """A connection that a person agrees to on another device.

    Args:
        workspace: The tenant.
        connection_id: The connection to be.
        provider_config_id: The OAuth client.
        expires_at: When it is over.
        interval_seconds: How often it may be asked whether the person has agreed.
        status: pending, connected, denied or expired.
    """

    workspace: str
    connection_id: str
    provider_config_id: str
    expires_at: datetime
    interval_seconds: int
    status: str = "pending"


@dataclass(frozen=True, slots=True)
class BegunDevice:
    """What a person needs to agree on another device; or why it was not begun."""

    failure: str = ""
    user_code: str = ""
    verification_uri: str = ""
    verification_uri_complete: str = ""
    life_seconds: int = 0
    interval_seconds: int = 0


@dataclass(frozen=True, slots=True)
class HealthOutcome:
    """What a Provider said of a credential.

    Args:
        failure: Why it is not good, or why that is not known; empty: it is good.
        refused: Whether the Provider said that it is not.
        rotate_at: When the API key ends, as its Provider says; None: it does not say.
    """

    failure: str = ""
    refused: bool = False
    rotate_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A connect session: who may connect what, until when."""

    workspace: str
    end_user_id: str
    provider_config_ids: tuple[str, ...]
    expires_at: datetime
    values: Pairs = ()
    connection_id: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """An open authorization request."""

    workspace: str
    connection_id: str
    provider_config_id: str
    end_user_id: str
    binding_hash: bytes
    redirect_uri: str
    endpoints: Endpoints
    expires_at: datetime
    values: Pairs = ()
    # By which the log knows the end user.
    subject: str = ""


@dataclass(frozen=True, slots=True)
class TokenOutcome:
    """A token answer, judged by the worker, without its secrets. `failure` empty: stored.

    Args:
        failure: A stable reason.
        scopes: The scopes granted.
        expires_at: When the access token ends; None: it does not say.
        refreshable: Whether a refresh token is stored.
        retry_after_seconds: What the Provider asked for; 0: nothing.
        nothing_sent: Whether it is sure that the Provider saw no request.
        metadata: What of the answer is worth keeping.
    """

    failure: str
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    refreshable: bool = False
    retry_after_seconds: int = 0
    nothing_sent: bool = False
    metadata: Pairs = ()


class Ending(NamedTuple):
    """What came of a lease.

    Args:
        tokens: The new tokens; None: there are none.
        reauth: Why the end user has to connect again; empty: no need.
        left: What is left; None: what was left before stays.
        due: When it is refreshed next; None: never with new tokens, as before without.
        failing: With a failure: what the connection's refreshes are now.
    """

    tokens: TokenOutcome | None = None
    reauth: str = ""
    left: Left | None = None
    due: datetime | None = None
    failing: Failing | None = None


@dataclass(frozen=True, slots=True)
class RevokeOutcome:
    """How a Provider answered a revocation."""

    revoked: bool
    failure: str = ""
    retryable: bool = False
    retry_after_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Acting:
    """On whose behalf: from a verified grant, never from a request."""

    workspace: str
    actor: str
    request_id: str
    source: str = ""


def provider_word(provider: str) -> str:
    """Gives a Provider as it stands in an event; empty: what it is called is a text of somebody's."""
    return provider if _WORD.fullmatch(provider) else ""


def audit_entry(
    name: str,
    acting: Acting,
    target: str,
    *,
    reason: str = "",
    purpose: str = "",
    outcome: Literal["SUCCEEDED", "FAILED", "REFUSED"] | None = None,
) -> AuditEntry:
    """Makes the event of an act.

    Args:
        name: Which event.
        acting: On whose behalf.
        target: What it was done to.
        reason: Why it failed; empty: it did not.
        purpose: For what a credential was used; empty: none was.
        outcome: How it ended; None: as the reason says.
    """
    return AuditEntry(
        name=name,
        outcome=outcome or ("FAILED" if reason else "SUCCEEDED"),
        actor=acting.actor,
        request_id=acting.request_id,
        workspace_id=acting.workspace,
        target=target,
        purpose=purpose,
        reason=reason,
        source=acting.source,
    )
