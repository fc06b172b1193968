"""The JSON of the public API; from it comes /openapi.json. Unknown fields are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from authpipe_gateway_edge.domain import words
from authpipe_sensitive import Secret


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
        "", "client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"
    ] = Field("", description="Of what the Provider takes; empty: what it prefers.")
    client_id: str = Field(max_length=500)
    client_secret: SecretStr = Field(
        SecretStr(""), max_length=16384, description="Write only. With private_key_jwt the key, a PEM or a JWK."
    )
    scopes: list[str] = Field(default=[], max_length=200)
    redirect_uris: list[str] = Field(
        default=[], max_length=20, description="The allowlist, compared exactly. Empty: our own callback."
    )
    display_name: str = Field("", max_length=200)

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
        )


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
        )


class ProviderConfigPage(BaseModel):
    """A page of provider configurations."""

    provider_configs: list[ProviderConfigOut]
    next_page_token: str


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

    kind: Literal["oauth2", "api_key", "basic", "webhook_secret"]
    end_user_id: str = Field(min_length=1, max_length=200)
    provider: str = Field(
        "", max_length=100, description="A name for the Provider; for oauth2 it is the configuration's."
    )
    provider_config_id: str = Field("", max_length=80, description="For oauth2: the OAuth client.")
    allowed_hosts: list[str] = Field(default=[], max_length=20, description="For keys: where they may be sent.")
    api_key: SecretStr = Field(SecretStr(""), max_length=16384)
    username: SecretStr = Field(SecretStr(""), max_length=16384)
    password: SecretStr = Field(SecretStr(""), max_length=16384)
    webhook_secret: SecretStr = Field(SecretStr(""), max_length=16384)
    access_token: SecretStr = Field(SecretStr(""), max_length=16384)
    refresh_token: SecretStr = Field(SecretStr(""), max_length=16384)
    scopes: list[str] = Field(default=[], max_length=200)
    expire_time: datetime | None = None
    values: dict[str, str] = Field(
        default={}, max_length=20, description="For oauth2: what the Provider asks each connection for."
    )

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
            scopes=tuple(self.scopes),
            expires_at=self.expire_time,
            values=tuple(sorted(self.values.items())),
        )


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
    expire_time: datetime | None = None
    scopes: list[str] | None = None
    api_key: str | None = None
    username: str | None = None
    password: str | None = None
    webhook_secret: str | None = None


class EventOut(BaseModel):
    """An audit event with its place in the tree."""

    event_id: str
    event: str
    time: datetime
    emitter: str
    actor: str
    target: str
    purpose: str
    record_class: str
    record_version: int
    outcome: str
    reason: str
    request_id: str
    leaf_index: int


class EventPage(BaseModel):
    """A page of audit events, newest first."""

    events: list[EventOut]
    next_page_token: str


class ProblemOut(BaseModel):
    """RFC 9457. `reason` is stable; `detail` says what helps."""

    type: str
    title: str
    status: int
    detail: str
    reason: str
    request_id: str


def _shut(value: SecretStr) -> Secret:
    return Secret(value.get_secret_value().encode())
