"""The objects of the broker: provider configurations, connections, flows; parsed once, frozen."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class State(enum.Enum):
    """States of a connection.

    draft → active ⇄ needs_reauth; each of them → disconnecting → disconnected. Nothing returns from there. A draft is
    seen by nobody; one that is left is swept. In disconnecting nothing is served and only revocation is possible.
    """

    DRAFT = "draft"
    ACTIVE = "active"
    NEEDS_REAUTH = "needs_reauth"
    DISCONNECTING = "disconnecting"
    DISCONNECTED = "disconnected"


class Kind(enum.Enum):
    """Kinds of credential."""

    OAUTH2 = "oauth2"
    API_KEY = "api_key"
    BASIC = "basic"
    WEBHOOK_SECRET = "webhook_secret"  # the name of a kind  # noqa: S105  # the name of a kind


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The tuple that a flow begins with and ends with."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    auth_method: str
    iss_required: bool


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """Our OAuth client at a Provider; its secret is in clientsecrets."""

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


@dataclass(frozen=True, slots=True)
class Session:
    """A connect session: who may connect what, until when."""

    workspace: str
    end_user_id: str
    provider_config_ids: tuple[str, ...]
    expires_at: datetime


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


@dataclass(frozen=True, slots=True)
class TokenOutcome:
    """A token answer, judged by the worker, without its secrets. `failure` empty: stored."""

    failure: str
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    refreshable: bool = False
    retry_after_seconds: int = 0


@dataclass(frozen=True, slots=True)
class RevokeOutcome:
    """How a Provider answered a revocation."""

    revoked: bool
    failure: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Acting:
    """On whose behalf: from a verified grant, never from a request."""

    workspace: str
    actor: str
    request_id: str
