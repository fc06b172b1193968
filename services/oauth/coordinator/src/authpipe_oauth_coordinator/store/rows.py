"""Rows as the domain's words, and back; columns by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from authpipe_oauth_coordinator.domain.words import Connection, Failing, Kind, Pairs, ProviderConfig, State
from authpipe_providers import Endpoints, read

ENDPOINTS = (
    "issuer, authorization_endpoint, token_endpoint, revocation_endpoint, token_endpoint_auth_method, iss_required"
)
CONFIG = (
    "workspace_id, id, provider, display_name, client_id, scopes, redirect_uris, hosts_digest, created_at, entry, "
    + ENDPOINTS
)
CONNECTION = (
    "workspace_id, id, state, state_reason, state_at, kind, provider, provider_config_id, end_user_id, scopes,"
    " expires_at, refreshable, hosts_digest, refreshed_at, created_at, refresh_due_at, refresh_failure,"
    " refresh_failing_since, refresh_attempts, refresh_not_before, values, metadata, entry"
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
    )


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
    )
