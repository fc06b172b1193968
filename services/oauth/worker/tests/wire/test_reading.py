"""What is worked out once for jobs that agree is what each of them says: none is sent by another one's route."""

from __future__ import annotations

from typing import Any

import pytest
from authpipe.oauth.v1 import types_pb2
from authpipe.oauth.v1 import worker_pb2 as pb
from authpipe_oauth_worker.servicer import reading
from authpipe_oauth_worker.servicer.reading import job_of, proxy_job_of


def value(said: str, *one_of: str) -> types_pb2.ConnectionValue:
    return types_pb2.ConnectionValue(name="shop", value=said, one_of=one_of)


def job(**changes: Any) -> pb.Job:
    """A job that says something in every place that a route may come from."""
    said: dict[str, Any] = {
        "workspace_id": "ws",
        "connection_id": "con",
        "provider": "acme",
        "provider_config_id": "cfg",
        "client_id": "client",
        "scopes": ["read"],
        "values": [value("north")],
        "endpoints": types_pb2.ProviderEndpoints(
            token_endpoint="https://{shop}.acme.example/token", token_endpoint_auth_method="client_secret_basic"
        ),
        "dialect": types_pb2.Dialect(
            api_base_urls=["https://{shop}.acme.example/{client_id}"],
            api_headers=[types_pb2.Parameter(name="x-version", value="7")],
        ),
    }
    return pb.Job(**(said | changes))


CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a value of the connection": {"values": [value("south")]},
    "what values there may be": {"values": [value("north", "north", "east")]},
    "the client": {"client_id": "another"},
    "the token endpoint": {
        "endpoints": types_pb2.ProviderEndpoints(
            token_endpoint="https://acme.example/token", token_endpoint_auth_method="client_secret_basic"
        )
    },
    "how the client says who it is": {
        "endpoints": types_pb2.ProviderEndpoints(
            token_endpoint="https://{shop}.acme.example/token", token_endpoint_auth_method="none"
        )
    },
    "where the API is": {"dialect": types_pb2.Dialect(api_base_urls=["https://{shop}.other.example"])},
    "who else it is": {"workspace_id": "ws_b", "connection_id": "con_b", "provider": "b", "credential_grant": "g"},
}


@pytest.mark.promise("P09")
@pytest.mark.parametrize("change", CHANGES)
def test_a_job_goes_where_it_says_whatever_jobs_came_before(change: str) -> None:
    for each in (CHANGES[change], *CHANGES.values(), CHANGES[change]):
        wanted = job(**each)
        proxied = proxy_job_of(pb.ProxyHead(job=wanted, method="GET"))
        values, rules = reading._filling(wanted)  # noqa: SLF001  # what it is compared with
        known = reading._endpoints(wanted)  # noqa: SLF001  # likewise: worked out anew
        assert job_of(wanted).endpoints == known
        assert proxied.hosts == known.hosts
        assert proxied.base_urls == tuple(reading.fill(url, values, rules) for url in wanted.dialect.api_base_urls)
        assert proxied.api_headers == tuple((pair.name, pair.value) for pair in wanted.dialect.api_headers)
        assert proxied.ways == reading._ways(wanted.dialect, values, known)  # noqa: SLF001  # likewise
        assert (proxied.workspace, proxied.connection) == (wanted.workspace_id, wanted.connection_id)


@pytest.mark.promise("P09")
def test_two_connections_at_one_provider_go_to_their_own_hosts() -> None:
    north, south = (proxy_job_of(pb.ProxyHead(job=job(values=[value(each)]))) for each in ("north", "south"))
    assert north.base_urls == ("https://north.acme.example/client",)
    assert south.base_urls == ("https://south.acme.example/client",)
    assert not north.hosts & south.hosts
