"""Rows as the domain's words, and back; columns by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from authpipe_oauth_coordinator.domain.words import (
    Connection,
    Failing,
    Health,
    Kind,
    Pairs,
    ProviderConfig,
    Renewal,
    State,
)
from authpipe_providers import Endpoints, read

ENDPOINTS = (
    "issuer, authorization_endpoint, token_endpoint, revocation_endpoint, token_endpoint_auth_method, iss_required,"
    " further_endpoints"
)
_FURTHER = (
    "refresh_endpoint",
    "pushed_endpoint",
    "device_endpoint",
    "introspection_endpoint",
    "userinfo_endpoint",
    "temporary_endpoint",
)
CONFIG = (
    "workspace_id, id, provider, display_name, client_id, scopes, redirect_uris, hosts_digest, created_at, entry,"
    " client_secret_classes, discovered, notice, noticed_at, " + ENDPOINTS
)
CONNECTION = (
    "workspace_id, id, state, state_reason, state_at, kind, provider, provider_config_id, end_user_id, scopes,"
    " expires_at, refreshable, hosts_digest, refreshed_at, created_at, refresh_due_at, refresh_failure,"
    " refresh_failing_since, refresh_attempts, refresh_not_before, values, metadata, entry, renewal, health_state,"
    " health_reason, health_at, health_refusals, health_ever_passed, rotate_at, keep_until"
)

ADD_CONNECTION = (
    f"insert into connections ({CONNECTION}) values (:workspace, :id, :state, :reason, :state_at, :kind,"  # fixed columns
    " :provider, :config, :end_user, :scopes, :expires, :refreshable, :hosts, :refreshed, :created, :due,"
    " '', null, 0, null, cast(:values as jsonb), '{}', cast(:entry as jsonb), :renewal, '', '', null, 0,"
    " false, :rotate_at, null)"
)


def config_values(config: ProviderConfig) -> dict[str, Any]:
    """Gives a provider configuration's values, by the names of the statements."""
    return {
        "workspace": config.workspace,
        "id": config.id,
        "provider": config.provider,
        "name": config.display_name,
        "client_id": config.client_id,
        "scopes": list(config.scopes),
        "redirect_uris": list(config.redirect_uris),
        "hosts": config.hosts,
        "created_at": config.created_at,
        "entry": json.dumps(config.entry.document),
        "secret_classes": list(config.secret_classes),
        "discovered": config.discovered,
    }


def endpoint_values(endpoints: Endpoints) -> dict[str, Any]:
    """Gives endpoints' values, by the names of the statements."""
    return {
        "issuer": endpoints.issuer,
        "authorization": endpoints.authorization_endpoint,
        "token": endpoints.token_endpoint,
        "revocation": endpoints.revocation_endpoint,
        "method": endpoints.auth_method,
        "iss_required": endpoints.iss_required,
        "further": json.dumps(
            {name: getattr(endpoints, name) for name in (*_FURTHER, "dpop") if getattr(endpoints, name)}
        ),
    }


def read_endpoints(row: Any) -> Endpoints:
    """Reads endpoints from a row."""
    return Endpoints(
        row.issuer,
        row.authorization_endpoint,
        row.token_endpoint,
        row.revocation_endpoint,
        row.token_endpoint_auth_method,
        row.iss_required,
        **{name: row.further_endpoints.get(name, "") for name in _FURTHER},
        dpop=row.further_endpoints.get("dpop", False),
    )


def read_config(row: Any) -> ProviderConfig:
    """Reads a provider configuration from a row."""
    return ProviderConfig(
        row.workspace_id,
        row.id,
        row.provider,
        row.display_name,
        row.client_id,
        tuple(row.scopes),
        tuple(row.redirect_uris),
        read_endpoints(row),
        bytes(row.hosts_digest),
        row.created_at,
        read(row.entry),
        tuple(row.client_secret_classes),
        row.discovered,
        row.notice,
        row.noticed_at,
    )


def connection_values(new: Connection) -> dict[str, Any]:
    """Gives a new connection's values, by the names of the statements."""
    return {
        "workspace": new.workspace,
        "id": new.id,
        "state": new.state.value,
        "reason": new.state_reason,
        "state_at": new.state_at,
        "kind": new.kind.value,
        "provider": new.provider,
        "config": new.provider_config_id,
        "end_user": new.end_user_id,
        "scopes": list(new.scopes),
        "expires": new.expires_at,
        "refreshable": new.refreshable,
        "hosts": new.hosts,
        "refreshed": new.refreshed_at,
        "created": new.created_at,
        "due": new.refresh_due_at,
        "values": write_pairs(new.values),
        "entry": json.dumps(new.entry.document) if new.entry is not None else None,
        "renewal": new.renewal.value,
        "rotate_at": new.rotate_at,
    }


def read_pairs(data: Mapping[str, str]) -> Pairs:
    """Reads names with values from a JSON object."""
    return tuple(sorted(data.items()))


def write_pairs(pairs: Pairs) -> str:
    """Gives names with values as a JSON object."""
    return json.dumps(dict(pairs))


def _read_failing(row: Any) -> Failing | None:
    if not row.refresh_failure:
        return None
    return Failing(row.refresh_failure, row.refresh_failing_since, row.refresh_attempts, row.refresh_not_before)


def read_connection(row: Any) -> Connection:
    """Reads a connection from a row."""
    return Connection(
        row.workspace_id,
        row.id,
        State(row.state),
        row.state_reason,
        row.state_at,
        Kind(row.kind),
        row.provider,
        row.provider_config_id,
        row.end_user_id,
        tuple(row.scopes),
        row.expires_at,
        row.refreshable,
        bytes(row.hosts_digest),
        row.refreshed_at,
        row.created_at,
        row.refresh_due_at,
        _read_failing(row),
        read_pairs(row.values),
        read_pairs(row.metadata),
        read(row.entry) if row.entry is not None else None,
        Renewal(row.renewal),
        Health(row.health_state, row.health_reason, row.health_at, row.health_refusals, row.health_ever_passed)
        if row.health_state
        else None,
        row.rotate_at,
        row.keep_until,
    )
