"""The JSON of the public API; from it comes /openapi.json. Unknown fields are refused."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from authpipe_gateway_edge.domain import words
from authpipe_gateway_edge.errors import MalformedRequestError
from authpipe_sensitive import Label, Secret


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class QuestionOut(BaseModel):
    """What each connection of a Provider is asked for, such as a subdomain."""

    name: str
    title: str
    description: str
    example: str
    one_of: list[str]

    @classmethod
    def of(cls, question: words.Question) -> QuestionOut:
        """Gives it as JSON shows it."""
        return cls(
            name=question.name,
            title=question.title,
            description=question.description,
            example=question.example,
            one_of=list(question.one_of),
        )


class ProviderOut(BaseModel):
    """A Provider that is known: of the catalog, or your own."""

    name: str
    display_name: str
    kinds: list[str]
    own: bool
    notes: list[str]
    values: list[QuestionOut]

    @classmethod
    def of(cls, provider: words.Provider) -> ProviderOut:
        """Gives it as JSON shows it."""
        return cls(
            name=provider.name,
            display_name=provider.display_name,
            kinds=list(provider.kinds),
            own=provider.own,
            notes=list(provider.notes),
            values=[QuestionOut.of(each) for each in provider.questions],
        )


class ProviderList(BaseModel):
    """All Providers that are known, by name."""

    providers: list[ProviderOut]


class ProviderConfigIn(_Strict):
    """An OAuth client at a Provider: by catalog name, by issuer, or by endpoints."""

    provider: str = Field("", max_length=100, description="A name of the catalog, such as `github`; or")
    issuer: str = Field("", max_length=2000, description="an issuer URL, whose metadata is fetched; or")
    authorization_endpoint: str = Field("", max_length=2000, description="explicit endpoints: this one,")
    token_endpoint: str = Field("", max_length=2000, description="this one,")
    revocation_endpoint: str = Field("", max_length=2000, description="and, where there is one, this one.")
    token_endpoint_auth_method: Literal[
        "",
        "client_secret_basic",
        "client_secret_post",
        "client_secret_jwt",
        "private_key_jwt",
        "tls_client_auth",
        "none",
    ] = Field("", description="Of what the Provider takes; empty: what it prefers.")
    client_id: str = Field(max_length=500)
    client_secret: SecretStr = Field(
        SecretStr(""),
        max_length=16384,
        description="Write only. With private_key_jwt the key, a PEM or a JWK; with tls_client_auth certificate and key, PEM.",
    )
    scopes: list[str] = Field(default=[], max_length=200)
    redirect_uris: list[str] = Field(
        default=[], max_length=20, description="The allowlist, compared exactly. Empty: our own callback."
    )
    display_name: str = Field("", max_length=200)
    bearer_only: bool = Field(
        default=False,
        description="Bearer tokens, though the Provider binds tokens to keys (RFC 9449). A bound token is used through the proxy.",
    )

    def to_words(self, callback: str) -> words.NewProviderConfig:
        """Gives it in the domain's words."""
        return words.NewProviderConfig(
            provider=self.provider,
            issuer=self.issuer,
            authorization_endpoint=self.authorization_endpoint,
            token_endpoint=self.token_endpoint,
            revocation_endpoint=self.revocation_endpoint,
            auth_method=self.token_endpoint_auth_method,
            client_id=self.client_id,
            client_secret=_shut(self.client_secret),
            scopes=tuple(self.scopes),
            redirect_uris=tuple(self.redirect_uris) or (callback,),
            display_name=self.display_name,
            bearer_only=self.bearer_only,
        )


class ClientSecretIn(_Strict):
    """A second client secret."""

    client_secret: SecretStr = Field(min_length=1, max_length=16384, description="Write only.")

    def secret(self) -> Secret:
        """Gives it shut."""
        return _shut(self.client_secret)


class ProviderConfigPatch(_Strict):
    """What changes; what is absent stays. Endpoints never change: credentials are bound to them."""

    scopes: list[str] = Field(default=[], max_length=200)
    redirect_uris: list[str] = Field(default=[], max_length=20)
    display_name: str = Field("", max_length=200)


class ProviderConfigOut(BaseModel):
    """A provider configuration; its secret is not shown again."""

    id: str
    provider: str
    display_name: str
    client_id: str
    client_secret_masked: str
    scopes: list[str]
    redirect_uris: list[str]
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    token_endpoint_auth_method: str
    create_time: datetime
    values: list[QuestionOut]
    client_secret_count: int
    grants: list[str]
    dpop: bool
    notice: str = Field(
        description="What you should know; empty: nothing. HOSTS_CHANGED: the issuer's metadata leads to other hosts now, to which"
        " nothing is sent. If that is right, make another provider configuration."
    )
    notice_time: datetime | None

    @classmethod
    def of(cls, config: words.ProviderConfig) -> ProviderConfigOut:
        """Gives it as JSON shows it."""
        return cls(
            id=config.id,
            provider=config.provider,
            display_name=config.display_name,
            client_id=config.client_id,
            client_secret_masked=config.masked,
            scopes=list(config.scopes),
            redirect_uris=list(config.redirect_uris),
            issuer=config.issuer,
            authorization_endpoint=config.authorization_endpoint,
            token_endpoint=config.token_endpoint,
            revocation_endpoint=config.revocation_endpoint,
            token_endpoint_auth_method=config.auth_method,
            create_time=config.created_at,
            values=[QuestionOut.of(each) for each in config.questions],
            client_secret_count=len(config.secret_classes),
            grants=list(config.grants),
            dpop=config.dpop,
            notice=config.notice,
            notice_time=config.noticed_at,
        )


class ProviderConfigPage(BaseModel):
    """A page of provider configurations."""

    provider_configs: list[ProviderConfigOut]
    next_page_token: str


class ProofIn(_Strict):
    """A request of your own, that you send with the token that was served."""

    method: str = Field(min_length=3, max_length=7, examples=["GET"])
    url: str = Field(min_length=9, max_length=2000, description="Where it goes; the query is no part of the proof.")
    nonce: str = Field("", max_length=500, description="What its `DPoP-Nonce` said; empty: nothing.")

    def to_words(self) -> words.Provable:
        """Gives it in the domain's words."""
        return words.Provable(self.method, self.url, self.nonce)


class ProofOut(BaseModel):
    """The value of the header `DPoP`; the token goes beside it, as `Authorization: DPoP …`."""

    proof: str


class ConnectSessionIn(_Strict):
    """Who may connect what."""

    end_user_id: str = Field(min_length=1, max_length=200, description="Your id of the end user.")
    provider_config_ids: list[str] = Field(default=[], max_length=100, description="Empty: everything configured.")
    values: dict[str, str] = Field(
        default={}, max_length=20, description="What a Provider asks each connection for, and you know already."
    )
    connection_id: str = Field(
        "", max_length=80, description="To connect this connection's account again: it keeps its id."
    )


class ConnectSessionOut(BaseModel):
    """For one browser, for ten minutes."""

    url: str
    expire_time: datetime


class ConnectionIn(_Strict):
    """A credential that you have already."""

    kind: Literal["oauth2", "oauth1", "api_key", "basic", "webhook_secret"]
    end_user_id: str = Field(min_length=1, max_length=200)
    provider: str = Field(
        "", max_length=100, description="A name for the Provider; for oauth2 it is the configuration's."
    )
    provider_config_id: str = Field("", max_length=80, description="For oauth2 and oauth1: the client.")
    allowed_hosts: list[str] = Field(default=[], max_length=20, description="For keys: where they may be sent.")
    api_key: SecretStr = Field(SecretStr(""), max_length=16384)
    username: SecretStr = Field(SecretStr(""), max_length=16384)
    password: SecretStr = Field(SecretStr(""), max_length=16384)
    webhook_secret: SecretStr = Field(SecretStr(""), max_length=16384)
    access_token: SecretStr = Field(SecretStr(""), max_length=16384)
    refresh_token: SecretStr = Field(SecretStr(""), max_length=16384)
    token_secret: SecretStr = Field(SecretStr(""), max_length=16384, description="For oauth1, with its access_token.")
    scopes: list[str] = Field(default=[], max_length=200)
    expire_time: datetime | None = None
    values: dict[str, str] = Field(
        default={}, max_length=20, description="For oauth2: what the Provider asks each connection for."
    )
    renewal: Literal["", "client_credentials", "jwt_bearer", "token_exchange", "two_step"] = Field(
        "", description="For oauth2: how tokens are asked for; empty: they are given here."
    )
    material: dict[str, SecretStr] = Field(
        default={},
        max_length=10,
        description="With jwt_bearer private_key, issuer and, if need be, subject and key_id; with token_exchange subject_token"
        " and subject_token_type; with two_step what the Provider's entry asks for.",
    )
    rotate_time: datetime | None = Field(None, description="For api_key: when it ends.")

    def to_words(self) -> words.NewConnection:
        """Gives it in the domain's words."""
        return words.NewConnection(
            kind=self.kind,
            end_user_id=self.end_user_id,
            provider=self.provider,
            provider_config_id=self.provider_config_id,
            allowed_hosts=tuple(self.allowed_hosts),
            api_key=_shut(self.api_key),
            username=_shut(self.username),
            password=_shut(self.password),
            webhook_secret=_shut(self.webhook_secret),
            access_token=_shut(self.access_token),
            refresh_token=_shut(self.refresh_token),
            token_secret=_shut(self.token_secret),
            scopes=tuple(self.scopes),
            expires_at=self.expire_time,
            values=tuple(sorted(self.values.items())),
            renewal=self.renewal,
            material=tuple((name, _shut(value)) for name, value in sorted(self.material.items())),
            rotate_at=with_zone(self.rotate_time),
        )


class DeviceFlowIn(_Strict):
    """Who connects what on another device."""

    provider_config_id: str = Field(max_length=80)
    end_user_id: str = Field(min_length=1, max_length=200, description="Your id of the end user.")
    values: dict[str, str] = Field(default={}, max_length=20)


class DeviceFlowOut(BaseModel):
    """A connection that a person agrees to on another device; what they need is shown when it begins."""

    connection_id: str
    status: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expire_time: datetime | None

    @classmethod
    def of(cls, flow: words.DeviceFlow) -> DeviceFlowOut:
        """Gives it as JSON shows it."""
        return cls(
            connection_id=flow.connection_id,
            status=flow.status,
            user_code=flow.user_code,
            verification_uri=flow.verification_uri,
            verification_uri_complete=flow.verification_uri_complete,
            expire_time=flow.expires_at,
        )


class WebhookSchemeIn(_Strict):
    """How what came is signed: an HMAC over `signed`, in which `{body}`, `{timestamp}` and `{id}` are filled in."""

    algorithm: Literal["sha256", "sha1", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    signature_header: str = Field(min_length=1, max_length=100)
    prefix: str = Field("", max_length=20, description="Before each signature, such as `sha256=`.")
    separator: Literal["", ",", " ", ";"] = Field("", description="Between several in that header.")
    signed: str = Field("{body}", max_length=100)
    timestamp_header: str = Field("", max_length=100)
    timestamp_prefix: str = Field("", max_length=20, description="Before the time in the signature's header.")
    id_header: str = Field("", max_length=100)
    tolerance_seconds: int = Field(0, ge=0, le=3600)
    secret_prefix: str = Field("", max_length=20)
    secret_base64: bool = False


class WebhookIn(_Strict):
    """What came to your address: its headers, and its body to the byte."""

    headers: dict[str, str] = Field(max_length=64)
    body_base64: str = Field(max_length=65536, description="The body, base64.")
    scheme: WebhookSchemeIn | None = Field(None, description="Absent: as the Provider's entry says.")

    def to_words(self) -> words.Arrived:
        """Gives it in the domain's words.

        Raises:
            MalformedRequestError: The body is not base64.
        """
        try:
            body = base64.b64decode(self.body_base64, validate=True)
        except binascii.Error:
            raise MalformedRequestError(field=Label("body_base64")) from None
        scheme = words.WebhookScheme(**self.scheme.model_dump()) if self.scheme is not None else None
        return words.Arrived(tuple(self.headers.items()), body, scheme)


class WebhookOut(BaseModel):
    """Yes or no; if no, why."""

    valid: bool
    reason: str


class HealthOut(BaseModel):
    """What came of trying the credential."""

    state: str
    reason: str
    check_time: datetime


class RefreshFailureOut(BaseModel):
    """That a connection's refreshes fail. A token that still lives is served all the same."""

    reason: str
    help: str
    attempts: int
    since_time: datetime
    retry_time: datetime | None

    @classmethod
    def of(cls, failing: words.Failing) -> RefreshFailureOut:
        """Gives it as JSON shows it."""
        return cls(
            reason=failing.reason,
            help=failing.helps,
            attempts=failing.attempts,
            since_time=failing.since,
            retry_time=failing.retry_at,
        )


class ConnectionOut(BaseModel):
    """A connection; never a value."""

    id: str
    state: str
    state_reason: str
    kind: str
    provider: str
    provider_config_id: str
    end_user_id: str
    scopes: list[str]
    expire_time: datetime | None
    refreshable: bool
    masked: str
    create_time: datetime
    state_time: datetime
    state_help: str
    refresh_failure: RefreshFailureOut | None
    values: dict[str, str]
    metadata: dict[str, str]
    renewal: str
    health: HealthOut | None
    rotate_time: datetime | None
    rotation_due: bool
    keep_until: datetime | None

    @classmethod
    def of(cls, connection: words.Connection) -> ConnectionOut:
        """Gives it as JSON shows it."""
        return cls(
            id=connection.id,
            state=connection.state,
            state_reason=connection.state_reason,
            kind=connection.kind,
            provider=connection.provider,
            provider_config_id=connection.provider_config_id,
            end_user_id=connection.end_user_id,
            scopes=list(connection.scopes),
            expire_time=connection.expires_at,
            refreshable=connection.refreshable,
            masked=connection.masked,
            create_time=connection.created_at,
            state_time=connection.state_at,
            state_help=connection.state_help,
            refresh_failure=RefreshFailureOut.of(connection.failing) if connection.failing else None,
            values=dict(connection.values),
            metadata=dict(connection.metadata),
            renewal=connection.renewal,
            health=_health(connection.health),
            rotate_time=connection.rotate_at,
            rotation_due=connection.rotation_due,
            keep_until=connection.keep_until,
        )


class ConnectionPage(BaseModel):
    """A page of connections, newest first."""

    connections: list[ConnectionOut]
    next_page_token: str


class TokenOut(BaseModel):
    """The live credential; which fields are there depends on its kind."""

    connection_id: str
    kind: str
    access_token: str | None = None
    token_type: str | None = None
    token_secret: str | None = None
    expire_time: datetime | None = None
    scopes: list[str] | None = None
    api_key: str | None = None
    username: str | None = None
    password: str | None = None
    webhook_secret: str | None = None


class ErasedOut(BaseModel):
    """What was erased of an end user."""

    disconnected_count: int


class ProblemOut(BaseModel):
    """RFC 9457. `reason` is stable; `detail` says what helps."""

    type: str
    title: str
    status: int
    detail: str
    reason: str
    request_id: str


def _health(health: words.Health | None) -> HealthOut | None:
    if health is None:
        return None
    return HealthOut(state=health.state, reason=health.reason, check_time=health.checked_at)


def with_zone(moment: datetime | None) -> datetime | None:
    """Gives a time with its zone: one without is in UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _shut(value: SecretStr) -> Secret:
    return Secret(value.get_secret_value().encode())
