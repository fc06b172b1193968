"""What a customer sees: provider configurations, connections, events; never a value."""

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
class EventFilter:
    """Which events of the workspace's log, and which page; what is empty filters nothing."""

    event: str
    target: str
    actor: str
    outcome: str
    some_id: str
    trail: str
    since: datetime | None
    until: datetime | None
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the log: ids, numbers and words of closed lists, without their prefixes."""

    event_id: str
    name: str
    time: datetime
    emitter: str
    sequence: int
    workspace: str
    actor: str
    target: str
    purpose: str
    record_class: str
    record_version: int
    outcome: str
    reason: str
    request_id: str
    grant_id: str
    trace_id: str
    source_address: str
    digest: str
    count: int
    until: datetime | None
    tree_size: int
    provider: str
    trail: str
    leaf_index: int


@dataclass(frozen=True, slots=True)
class Export:
    """Which events of the workspace's log are exported: of one trail, from a time on, before a time.

    Args:
        trail: user-credentials, client-secrets or control.
        since: From then on.
        until: Before then.
        seen_size: The size of a tree whose checkpoint the reader has; 0: none.
    """

    trail: str
    since: datetime | None
    until: datetime | None
    seen_size: int


class Events(NamedTuple):
    """A page of events, newest first, and of which trees it is, by trail."""

    events: list[Event]
    next_page_token: str
    tree_sizes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """An event of an incident, with what proves that it is in the log.

    Args:
        trail: The trail.
        leaf_index: Its leaf's index.
        record: Its record; empty: its body is expired.
        salt: Its salt, in hexadecimal.
        proof: C2SP tlog-proof; empty: the newest checkpoint does not have it yet.
    """

    trail: str
    leaf_index: int
    record: str
    salt: str
    proof: str


@dataclass(frozen=True, slots=True)
class Incident:
    """Something alarming that was found in the log.

    Args:
        id: Its id.
        detector: What was found.
        severity: low, medium, high or critical.
        subject: A connection, an API key, the workspace.
        state: open, acknowledged, customer_notified or closed.
        opened_at: When it was found.
        changed_at: Since when it is in this state.
        notify_by: By when the customer has to be told; None: there is nothing to tell.
        evidence: The events; not in a list.
    """

    id: str
    detector: str
    severity: str
    subject: str
    state: str
    opened_at: datetime
    changed_at: datetime
    notify_by: datetime | None
    evidence: tuple[Evidence, ...] = ()


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


class Member(NamedTuple):
    """Somebody of a workspace.

    Args:
        id: The id, mem_….
        email: An address.
        role: auditor, developer, admin or owner.
        state: invited or active.
    """

    id: str
    email: str
    role: str
    state: str


class Members(NamedTuple):
    """The members of a workspace.

    Args:
        members: Who is invited or active.
        workspace: The workspace's name.
        own_id: Who asks; empty: no member.
    """

    members: list[Member]
    workspace: str
    own_id: str


class Invitation(NamedTuple):
    """An invitation, shown once.

    Args:
        member_id: The member to be.
        url: The page at which one joins, with what one joins by behind its `#`.
        expires_at: Until when.
    """

    member_id: str
    url: Secret
    expires_at: datetime


class Session(NamedTuple):
    """A session of the dashboard.

    Args:
        token: What the browser keeps in its cookie.
        expires_at: When it ends.
    """

    token: Secret
    expires_at: datetime
