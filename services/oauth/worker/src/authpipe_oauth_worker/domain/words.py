"""What a job says and what came of it; parsed once at the door, frozen."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from authpipe_envelope import RecordClass
from authpipe_providers import Dialect


class Renewal(enum.Enum):
    """How a connection comes to its next access token, by the numbers of authpipe.oauth.v1.Renewal.

    With all but REFRESH_TOKEN the record of class REFRESH holds what tokens are asked for with, which is good for as often as
    one likes; a refresh token in the answer is not kept (RFC 6749, section 4.4.3).
    """

    REFRESH_TOKEN = 1
    CLIENT_CREDENTIALS = 2
    JWT_BEARER = 3
    TOKEN_EXCHANGE = 4
    TWO_STEP = 5


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a job may go, and how the Provider is spoken to.

    Args:
        token: Where codes are exchanged.
        revocation: RFC 7009; empty: nowhere.
        auth_method: How our client shows who it is.
        hosts: The hosts to which the connection's credentials are bound.
        refresh: Where tokens are refreshed; empty: at the token endpoint.
        client_hosts: The hosts to which our client secret is bound; None: the same.
        dialect: How the Provider is spoken to; its URLs are filled.
        pins: Public keys of which each host shows one.
        pushed: Where authorization requests are pushed; empty: nowhere.
        device: Where device codes are; empty: nowhere.
        introspection: RFC 7662; empty: nowhere.
        userinfo: OpenID Connect Core 1.0, section 5.3; empty: nowhere.
        dpop: Whether tokens are bound to a key of the connection (RFC 9449).
        temporary: Where temporary credentials are (RFC 5849, section 2.1); empty: it speaks OAuth 2.
    """

    token: str
    revocation: str
    auth_method: str
    hosts: frozenset[str]
    refresh: str = ""
    client_hosts: frozenset[str] | None = None
    dialect: Dialect = Dialect()
    pins: tuple[str, ...] = ()
    pushed: str = ""
    device: str = ""
    introspection: str = ""
    userinfo: str = ""
    dpop: bool = False
    temporary: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """What a job says.

    Args:
        workspace: The tenant.
        connection: The connection.
        config: The provider configuration.
        provider: The Provider, for the context.
        endpoints: Where it may go.
        client_id: The OAuth client id.
        client_grant: To open the client secret; empty: a public client.
        credential_grant: To open and write the connection's records.
        fence: The fence of the lease; 0: none.
        request_id: The request.
        scopes: What an answer without `scope` means.
        spend: Whether a refresh token may be sent.
        spent_fence: The fence under which one was sent of which nobody knows what came; 0: there is none.
        client_secrets: The classes of the client secrets, the one to try first first.
        renewal: How the next access token is come by.
    """

    workspace: str
    connection: str
    config: str
    provider: str
    endpoints: Endpoints
    client_id: str
    client_grant: str
    credential_grant: str
    fence: int
    request_id: str
    scopes: tuple[str, ...]
    spend: bool = True
    spent_fence: int = 0
    client_secrets: tuple[RecordClass, ...] = (RecordClass.CLIENT_SECRET,)
    renewal: Renewal = Renewal.REFRESH_TOKEN


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a flow was prepared with.

    Args:
        challenge: Of the code verifier.
        dpop_jkt: The thumbprint of the key that tokens are to be bound to; empty: they are not.
    """

    challenge: str
    dpop_jkt: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job.

    Args:
        failure: A stable reason; empty: stored.
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
    metadata: tuple[tuple[str, str], ...] = ()
