"""The words in which a Provider is described: parsed once, frozen. Every URL may be a template."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Pairs = tuple[tuple[str, str], ...]


class Rotation(enum.Enum):
    """What a Provider does with a refresh token that is used twice (RFC 9700, section 4.14.2).

    NONE: it is good for as often as one likes. GRACE: for some seconds the answer is given again. STRICT: the second
    use is refused, and may end every token of the family. Where nothing is known it is STRICT.
    """

    NONE = "none"
    GRACE = "grace"
    STRICT = "strict"


class ValueRule(NamedTuple):
    """What differs from connection to connection, such as a subdomain.

    Args:
        name: Its placeholder.
        title: What a person is asked for.
        description: What helps them.
        example: A value that fits.
        pattern: A regular expression for the whole value; empty: see `one_of`.
        one_of: The values that there are; empty: see `pattern`.
    """

    name: str
    title: str = ""
    description: str = ""
    example: str = ""
    pattern: str = ""
    one_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where an authorization server is found. Empty: it has none of that kind.

    Args:
        issuer: The issuer (RFC 8414, section 2).
        authorization_endpoint: Where browsers are sent (RFC 6749, section 3.1).
        token_endpoint: Where codes are exchanged (RFC 6749, section 3.2).
        revocation_endpoint: RFC 7009.
        auth_method: How our client shows who it is (OpenID Connect Core 1.0, section 9).
        iss_required: Whether answers must carry `iss` (RFC 9207, section 2.4).
        refresh_endpoint: Where tokens are refreshed; empty: at the token endpoint.
        pushed_endpoint: Where authorization requests are pushed (RFC 9126).
        device_endpoint: RFC 8628.
        introspection_endpoint: RFC 7662.
        userinfo_endpoint: OpenID Connect Core 1.0, section 5.3.
        dpop: Whether tokens are bound to a key of ours (RFC 9449).
        temporary_endpoint: Where temporary credentials are (RFC 5849, section 2.1); empty: it speaks OAuth 2.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    auth_method: str
    iss_required: bool
    refresh_endpoint: str = ""
    pushed_endpoint: str = ""
    device_endpoint: str = ""
    introspection_endpoint: str = ""
    userinfo_endpoint: str = ""
    dpop: bool = False
    temporary_endpoint: str = ""


class Answer(NamedTuple):
    """Where things stand in a token answer, as JSON pointers (RFC 6901); empty: where RFC 6749, section 5.1, says."""

    access_token: str = ""
    refresh_token: str = ""
    expires_in: str = ""
    scope: str = ""
    token_type_absent: bool = False


class Revocation(NamedTuple):
    """A Provider's own way to revoke.

    Args:
        method: The HTTP method.
        url: Where.
        token_in: How it learns which token: bearer, form or json.
        name: With form or json: the name of the token there.
        client: How our client shows who it is: basic, post, or empty.
        tokens: Which tokens it takes.
    """

    method: str
    url: str
    token_in: str
    name: str = ""
    client: str = ""
    tokens: tuple[str, ...] = ("refresh_token", "access_token")


class Assertion(NamedTuple):
    """How a JWT that asks for a token is made (RFC 7523, section 3).

    Args:
        audience: Its audience; empty: the token endpoint.
        life_seconds: How long it lives.
        scope_claim: Whether it carries the scopes.
    """

    audience: str = ""
    life_seconds: int = 300
    scope_claim: bool = False


class TwoStep(NamedTuple):
    """A Provider's own request that gives a token for credentials; in its values `{name}` is a credential.

    Args:
        method: The HTTP method.
        json_body: Whether the body is JSON; else a form.
        headers: Its headers.
        fields: Its fields.
    """

    method: str = "POST"
    json_body: bool = True
    headers: Pairs = ()
    fields: Pairs = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a token endpoint is spoken to where it is not as RFC 6749 says.

    Args:
        scope_separator: Between scopes.
        scope_parameter: The name of the scopes in an authorization request.
        authorization_parameters: Further ones.
        token_parameters: Further ones, with a code.
        refresh_parameters: Further ones, with a refresh token.
        json_body: Whether token requests are JSON.
        answer: Where things stand in an answer.
        metadata: What of an answer is worth keeping: names and JSON pointers.
        life_seconds: How long an access token lives where the answer does not say; 0: unknown.
        revocation: The Provider's own way to revoke; None: RFC 7009.
        resource: What tokens are for (RFC 8707, section 2); empty: nothing is said.
        assertion: How a JWT that asks for a token is made.
        two_step: The Provider's own request that gives a token for credentials; None: it has none.
        signature_method: With OAuth 1.0a: how requests are signed (RFC 5849, section 3.4).
        realm: With OAuth 1.0a: the realm of that (section 3.5.1); empty: none.
    """

    scope_separator: str = " "
    scope_parameter: str = "scope"
    authorization_parameters: Pairs = ()
    token_parameters: Pairs = ()
    refresh_parameters: Pairs = ()
    json_body: bool = False
    answer: Answer = Answer()
    metadata: Pairs = ()
    life_seconds: int = 0
    revocation: Revocation | None = None
    resource: str = ""
    assertion: Assertion = Assertion()
    two_step: TwoStep | None = None
    signature_method: str = ""
    realm: str = ""


class WebhookScheme(NamedTuple):
    """How a Provider signs what it sends: an HMAC over `signed`, in which `{body}`, `{timestamp}` and `{id}` are filled in.

    Args:
        algorithm: sha256, sha1 or sha512.
        encoding: hex or base64: how the signature is written.
        signature_header: The header that carries it, lower case.
        prefix: What stands before it there; where several are listed, before each.
        separator: What separates several in that header; empty: there is one.
        signed: What is signed.
        timestamp_header: The header with the time in seconds; empty: none.
        timestamp_prefix: What stands before the time in the signature's header; empty: it is not there.
        id_header: The header with the message's id; empty: none.
        tolerance_seconds: How old a message may be; 0: of any age.
        secret_prefix: What stands before the secret and is no part of it.
        secret_base64: Whether the rest of the secret is base64.
    """

    algorithm: str = "sha256"
    encoding: str = "hex"
    signature_header: str = ""
    prefix: str = ""
    separator: str = ""
    signed: str = "{body}"
    timestamp_header: str = ""
    timestamp_prefix: str = ""
    id_header: str = ""
    tolerance_seconds: int = 0
    secret_prefix: str = ""
    secret_base64: bool = False


class Signing(NamedTuple):
    """How an API wants requests signed with a secret that is not sent: the password of a pair whose username names it.

    In texts `{key}` is the username, `{method}`, `{host}`, `{path}`, `{query}`, `{target}` (path and query), `{body}` and
    `{body_hash}` are of the request, `{timestamp}` and `{nonce}` are made for it, and `{signature}` is what comes of it.

    Args:
        scheme: hmac; or sigv4, which is AWS Signature Version 4 and for which only service and region are said.
        algorithm: sha256, sha1 or sha512.
        encoding: hex or base64: how the signature is written.
        body_encoding: hex or base64: how the hash of the body is written.
        signed: What is signed.
        headers: What the request carries.
        query: What is added to its query. What has no signature in it is part of what is signed.
        time: seconds, milliseconds or rfc3339: how the time is written.
        secret_base64: Whether the secret is base64 of the key.
        service: The AWS service.
        region: The AWS region; may be a placeholder of the entry's values.
    """

    scheme: str
    algorithm: str = "sha256"
    encoding: str = "hex"
    body_encoding: str = "hex"
    signed: str = ""
    headers: Pairs = ()
    query: Pairs = ()
    time: str = "seconds"
    secret_base64: bool = False
    service: str = ""
    region: str = ""

    @property
    def covers_body(self) -> bool:
        """Whether the signature is over the body, which has to be known as a whole before anything is sent."""
        if self.scheme == "sigv4":
            # Over TLS, S3 takes a body that is not signed (its API reference: UNSIGNED-PAYLOAD).
            return self.service != "s3"
        return "{body" in self.signed


class RotationCheck(NamedTuple):
    """Where an API says when an API key ends: a JSON pointer into an answer."""

    url: str
    pointer: str


class Placement(NamedTuple):
    """Where an API wants a credential.

    Args:
        where: header, query or basic.
        name: Of the header or parameter.
        prefix: What stands before it in a header.
    """

    where: str = "header"
    name: str = "Authorization"
    prefix: str = "Bearer "


class Api(NamedTuple):
    """A Provider's API, for the proxy.

    Args:
        base_urls: Where it is; the first is meant where none is named.
        headers: What every request carries.
        token: Where it wants an access token.
    """

    base_urls: tuple[str, ...] = ()
    headers: Pairs = ()
    token: Placement = Placement()


class HealthCheck(NamedTuple):
    """A harmless request that says whether a credential is good."""

    method: str
    url: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a Provider.

    Args:
        name: Its name in the catalog; of one that is not in it, the host of its token endpoint.
        display_name: For people.
        endpoints: Of its authorization server; None: it has none.
        dialect: How that is spoken to.
        values: What differs from connection to connection.
        grants: How a connection comes to be.
        client_authentication: What its token endpoint takes, the best first.
        default_scopes: What is asked for where nothing else is said.
        rotation: What happens to a refresh token that is used twice.
        grace_seconds: With GRACE: for how long the answer is given again.
        api: Its API; None: nothing is known of one.
        api_key: Where its API wants an API key; None: it takes none.
        key_life_days: After how many days its API keys end; 0: they do not.
        basic: Whether its API takes a pair: HTTP Basic, or what requests are signed with.
        health: A harmless request; None: none is known.
        pins: Public keys of which each of its hosts shows one.
        notes: What a person should know.
        documentation: The pages that this was made from.
        read_on: When those were read; empty: they are still to be compared with this.
        document: The file itself, as it is kept.
        rotation_check: Where its API says when an API key ends; None: nowhere.
        webhook: How it signs what it sends; None: nothing is known.
        credentials: What a two-step token is asked for with: names and titles.
        signing: How its API wants requests signed with a pair; None: a pair is sent as HTTP Basic.
    """

    name: str
    display_name: str
    endpoints: Endpoints | None = None
    dialect: Dialect = Dialect()
    values: tuple[ValueRule, ...] = ()
    grants: tuple[str, ...] = ("authorization_code",)
    client_authentication: tuple[str, ...] = ()
    default_scopes: tuple[str, ...] = ()
    rotation: Rotation = Rotation.STRICT
    grace_seconds: int = 0
    api: Api | None = None
    api_key: Placement | None = None
    key_life_days: int = 0
    basic: bool = False
    health: HealthCheck | None = None
    pins: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    documentation: tuple[str, ...] = ()
    read_on: str = ""
    document: Mapping[str, object] = field(default_factory=dict, compare=False, hash=False)
    rotation_check: RotationCheck | None = None
    webhook: WebhookScheme | None = None
    credentials: Pairs = ()
    signing: Signing | None = None
