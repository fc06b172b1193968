"""What coordinator says of provider configurations and connections, from the wire to edge's words, and back."""

from __future__ import annotations

import datetime as dt

from google.protobuf.timestamp_pb2 import Timestamp


from authpipe.oauth.v1 import coordinator_pb2 as pb
from authpipe.oauth.v1 import types_pb2
from authpipe_gateway_edge.domain.words import Connection, Failing, Health, Pairs, Provider, ProviderConfig, Question

STATES = {
    types_pb2.CONNECTION_STATE_ACTIVE: "active",
    types_pb2.CONNECTION_STATE_CONFIGURATION_ERROR: "configuration_error",
    types_pb2.CONNECTION_STATE_NEEDS_REAUTH: "needs_reauth",
    types_pb2.CONNECTION_STATE_DISCONNECTING: "disconnecting",
    types_pb2.CONNECTION_STATE_DISCONNECTED: "disconnected",
    types_pb2.CONNECTION_STATE_KEPT: "kept",
}
KINDS = {
    types_pb2.CONNECTION_KIND_OAUTH2: "oauth2",
    types_pb2.CONNECTION_KIND_OAUTH1: "oauth1",
    types_pb2.CONNECTION_KIND_API_KEY: "api_key",
    types_pb2.CONNECTION_KIND_BASIC: "basic",
    types_pb2.CONNECTION_KIND_WEBHOOK_SECRET: "webhook_secret",
}
KIND_NUMBERS = {name: number for number, name in KINDS.items()}
RENEWALS = {
    types_pb2.RENEWAL_REFRESH_TOKEN: "refresh_token",
    types_pb2.RENEWAL_CLIENT_CREDENTIALS: "client_credentials",
    types_pb2.RENEWAL_JWT_BEARER: "jwt_bearer",
    types_pb2.RENEWAL_TOKEN_EXCHANGE: "token_exchange",
    types_pb2.RENEWAL_TWO_STEP: "two_step",
}
RENEWAL_NUMBERS = {name: number for number, name in RENEWALS.items()} | {"": types_pb2.RENEWAL_UNSPECIFIED}


def read_config(wire: types_pb2.ProviderConfig) -> ProviderConfig:
    """Reads a provider configuration."""
    endpoints = wire.endpoints
    return ProviderConfig(
        id=wire.id,
        provider=wire.provider,
        display_name=wire.display_name,
        client_id=wire.client_id,
        scopes=tuple(wire.scopes),
        redirect_uris=tuple(wire.redirect_uris),
        issuer=endpoints.issuer,
        authorization_endpoint=endpoints.authorization_endpoint,
        token_endpoint=endpoints.token_endpoint,
        revocation_endpoint=endpoints.revocation_endpoint,
        auth_method=endpoints.token_endpoint_auth_method,
        created_at=wire.create_time.ToDatetime(dt.UTC),
        hosts=wire.hosts_digest,
        questions=tuple(map(read_question, wire.values)),
        secret_classes=tuple(wire.client_secret_classes),
        grants=tuple(wire.grants),
        dpop=endpoints.dpop,
        notice=wire.notice,
        noticed_at=wire.notice_time.ToDatetime(dt.UTC) if wire.HasField("notice_time") else None,
    )


def to_parameters(values: Pairs) -> list[types_pb2.Parameter]:
    """Writes names with values."""
    return [types_pb2.Parameter(name=name, value=value) for name, value in values]


def read_question(wire: types_pb2.ValueQuestion) -> Question:
    """Reads a question."""
    return Question(wire.name, wire.title, wire.description, wire.example, tuple(wire.one_of))


def read_provider(wire: pb.Provider) -> Provider:
    """Reads a Provider."""
    questions = tuple(map(read_question, wire.values))
    return Provider(wire.name, wire.display_name, tuple(wire.kinds), wire.own, tuple(wire.notes), questions)


def read_connection(wire: types_pb2.Connection) -> Connection:
    """Reads a connection."""
    return Connection(
        id=wire.id,
        state=STATES[wire.state],
        state_reason=wire.state_reason,
        kind=KINDS[wire.kind],
        provider=wire.provider,
        provider_config_id=wire.provider_config_id,
        end_user_id=wire.end_user_id,
        scopes=tuple(wire.scopes),
        expires_at=wire.expire_time.ToDatetime(dt.UTC) if wire.HasField("expire_time") else None,
        refreshable=wire.refreshable,
        created_at=wire.create_time.ToDatetime(dt.UTC),
        state_at=wire.state_time.ToDatetime(dt.UTC),
        state_help=wire.state_help,
        failing=read_failing(wire.refresh_failure) if wire.HasField("refresh_failure") else None,
        values=tuple((each.name, each.value) for each in wire.values),
        metadata=tuple((each.name, each.value) for each in wire.metadata),
        renewal=RENEWALS.get(wire.renewal, ""),
        health=read_health(wire.health) if wire.HasField("health") else None,
        rotate_at=wire.rotate_time.ToDatetime(dt.UTC) if wire.HasField("rotate_time") else None,
        rotation_due=wire.rotation_due,
        keep_until=wire.keep_until.ToDatetime(dt.UTC) if wire.HasField("keep_until") else None,
    )


def read_health(wire: types_pb2.Health) -> Health:
    """Reads what came of trying a credential."""
    return Health(wire.state, wire.reason, wire.check_time.ToDatetime(dt.UTC))


def read_failing(wire: types_pb2.RefreshFailure) -> Failing:
    """Reads that refreshes fail."""
    retry_at = wire.retry_time.ToDatetime(dt.UTC) if wire.HasField("retry_time") else None
    return Failing(wire.reason, wire.help, wire.attempts, wire.since_time.ToDatetime(dt.UTC), retry_at)


def to_time(moment: dt.datetime | None) -> Timestamp | None:
    """Writes a time; None: none."""
    if moment is None:
        return None
    wire = Timestamp()
    wire.FromDatetime(moment)
    return wire
