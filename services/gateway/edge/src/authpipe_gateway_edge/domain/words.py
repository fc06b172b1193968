"""What a customer configures and connects: provider configurations, connections, credentials as they are shown; never a value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from authpipe_gateway_edge.errors import MalformedRequestError, NotFoundError
from authpipe_sensitive import Label, Secret

_ID = re.compile(r"[a-z]{2,4}_[0-9A-Za-z]{10,40}")


def require_id(text: str) -> str:
    """Gives an id; what cannot be one does not exist.

    Raises:
        NotFoundError: It has not the form of an id.
    """
    if _ID.fullmatch(text) is None:
        raise NotFoundError
    return text


def require_plain(text: str, name: str) -> str:
    """Gives a filter's text, which may be empty.

    Raises:
        MalformedRequestError: It has control characters, which no stored text has.
    """
    if text and not text.isprintable():
        raise MalformedRequestError(field=Label(name))
    return text


Pairs = tuple[tuple[str, str], ...]


class Question(NamedTuple):
    """What each connection of a Provider is asked for, such as a subdomain.

    Args:
        name: Its name.
        title: What a person is asked for.
        description: What helps them.
        example: A value that fits.
        one_of: The values that there are; empty: see the example.
    """

    name: str
    title: str
    description: str
    example: str
    one_of: tuple[str, ...]


class Provider(NamedTuple):
    """A line of the catalog.

    Args:
        name: Its name.
        display_name: For people.
        kinds: What kinds of credential it takes.
        own: Whether the workspace described it.
        notes: What a person should know.
        questions: What each connection is asked for.
    """

    name: str
    display_name: str
    kinds: tuple[str, ...]
    own: bool
    notes: tuple[str, ...]
    questions: tuple[Question, ...]


class ProxyRoute(NamedTuple):
    """Where a connection's Provider has its API, as coordinator pinned it; opaque here: it goes to the worker as it is.

    Args:
        packed: What a job of the worker says of it.
    """

    packed: bytes


class Provable(NamedTuple):
    """A request of a customer's own, for which a proof of a key is made.

    Args:
        method: The HTTP method.
        url: Where it goes.
        nonce: What the server wants in the proof; empty: nothing is known.
    """

    method: str
    url: str
    nonce: str


class Caller(NamedTuple):
    """Who asks.

    Args:
        credential: The API key, or the token of a session of the dashboard, as it was sent; checked by authority.
        request_id: The request.
        source: The address it came from; empty: not known.
        is_session: Whether it is the token of a session.
    """

    credential: Secret
    request_id: str
    source: str
    is_session: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What authority said.

    Args:
        workspace: The workspace of the API key or member.
        record_grant: To have record keys released.
        manage_grant: To act for the workspace.
    """

    workspace: str
    record_grant: str
    manage_grant: str


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """A provider configuration; its secret is elsewhere."""

    id: str
    provider: str
    display_name: str
    client_id: str
    scopes: tuple[str, ...]
    redirect_uris: tuple[str, ...]
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    auth_method: str
    created_at: datetime
    hosts: bytes
    masked: str = ""
    questions: tuple[Question, ...] = ()
    secret_classes: tuple[int, ...] = ()
    grants: tuple[str, ...] = ()
    dpop: bool = False
    notice: str = ""
    noticed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewProviderConfig:
    """What a customer says about an OAuth client."""

    provider: str
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    auth_method: str
    client_id: str
    client_secret: Secret
    scopes: tuple[str, ...]
    redirect_uris: tuple[str, ...]
    display_name: str
    bearer_only: bool


class Failing(NamedTuple):
    """That a connection's refreshes fail.

    Args:
        reason: Why the last one did.
        helps: What helps, a sentence.
        attempts: How many did in a row.
        since: Since when they do.
        retry_at: When it is tried again by itself; None: it is not.
    """

    reason: str
    helps: str
    attempts: int
    since: datetime
    retry_at: datetime | None


class Health(NamedTuple):
    """What came of trying a credential.

    Args:
        state: passing, failing or unknown.
        reason: Why; empty while passing.
        checked_at: When it was tried last.
    """

    state: str
    reason: str
    checked_at: datetime


class DeviceFlow(NamedTuple):
    """A connection that a person agrees to on another device.

    Args:
        connection_id: The connection to be.
        status: pending, connected, denied or expired.
        user_code: What the end user types; shown when it begins.
        verification_uri: Where.
        verification_uri_complete: The same with the code in it; empty: there is none.
        expires_at: When it is over; None: shown when it begins.
    """

    connection_id: str
    status: str
    user_code: str = ""
    verification_uri: str = ""
    verification_uri_complete: str = ""
    expires_at: datetime | None = None


class WebhookScheme(NamedTuple):
    """How what came is signed; see the proto for what each field means."""

    algorithm: str = ""
    encoding: str = ""
    signature_header: str = ""
    prefix: str = ""
    separator: str = ""
    signed: str = ""
    timestamp_header: str = ""
    timestamp_prefix: str = ""
    id_header: str = ""
    tolerance_seconds: int = 0
    secret_prefix: str = ""
    secret_base64: bool = False


class Arrived(NamedTuple):
    """What came to the customer's address.

    Args:
        headers: Names and values.
        body: To the byte.
        scheme: How it is signed; None: as its Provider's entry says.
    """

    headers: Pairs
    body: bytes
    scheme: WebhookScheme | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection; never a value."""

    id: str
    state: str
    state_reason: str
    kind: str
    provider: str
    provider_config_id: str
    end_user_id: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    refreshable: bool
    created_at: datetime
    state_at: datetime
    state_help: str = ""
    failing: Failing | None = None
    masked: str = ""
    values: Pairs = ()
    metadata: Pairs = ()
    renewal: str = "refresh_token"
    health: Health | None = None
    rotate_at: datetime | None = None
    rotation_due: bool = False
    keep_until: datetime | None = None


class Freshness(NamedTuple):
    """What became of a refresh that was asked for.

    Args:
        connection: The connection.
        pending: Whether it goes on; the token that is stored still lives.
    """

    connection: Connection
    pending: bool


@dataclass(frozen=True, slots=True)
class NewConnection:
    """A credential to import; which secrets are set depends on the kind."""

    kind: str
    end_user_id: str
    provider: str
    provider_config_id: str
    allowed_hosts: tuple[str, ...]
    api_key: Secret
    username: Secret
    password: Secret
    webhook_secret: Secret
    access_token: Secret
    refresh_token: Secret
    token_secret: Secret
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    values: Pairs = ()
    renewal: str = ""
    material: tuple[tuple[str, Secret], ...] = ()
    rotate_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of the hosted page."""

    provider_config_id: str
    display_name: str
    origin: str
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True, slots=True)
class Rotation:
    """How far a rotation of tokens is.

    Args:
        id: Its id; empty after a dry run.
        total: How many tokens are to be rotated.
        rotated: How many were.
        failed: How many could not be.
        irreplaceable: How many credentials only the customer can replace.
        began_at: When it began.
        ended_at: When it ended; None: it goes on.
    """

    id: str
    total: int
    rotated: int
    failed: int
    irreplaceable: int
    began_at: datetime
    ended_at: datetime | None
