"""Puts edge together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

from authpipe_rpc import (  # first: it sets grpc's cipher list
    Health,
    Peer,
    Probe,
    RpcServer,
    run_process,
    server_credentials,
)
import grpc

from authpipe.audit.v1 import audit_pb2_grpc
from authpipe.authority.v1 import authority_pb2_grpc, members_pb2_grpc
from authpipe.clientsecrets.v1 import clientsecrets_pb2_grpc
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe.oauth.v1 import coordinator_pb2_grpc, worker_pb2_grpc
from authpipe.vault.v1 import vault_pb2_grpc
from authpipe_consumer import RecordClient
from authpipe_gateway_edge.config import Config
from authpipe_gateway_edge.domain.containing import Containing
from authpipe_gateway_edge.domain.importing import Importing
from authpipe_gateway_edge.domain.managing import Managing
from authpipe_gateway_edge.domain.membering import Membering
from authpipe_gateway_edge.domain.proving import Proving
from authpipe_gateway_edge.domain.proxying import Proxying
from authpipe_gateway_edge.domain.sources import Sources
from authpipe_gateway_edge.domain.serving import Serving
from authpipe_gateway_edge.domain.webhooks import Webhooks
from authpipe_gateway_edge.peers import (
    AuditPeer,
    AuthorityPeer,
    ContainmentPeer,
    IncidentsPeer,
    CoordinatorPeer,
    MaskedPeer,
    MembersPeer,
    SignInPeer,
    WorkerPeer,
)
from authpipe_gateway_edge.rest.api import Api
from authpipe_gateway_edge.rest.app import EdgeApp
from authpipe_gateway_edge.rest.listening import rest_server
from authpipe_gateway_edge.servicer import ContainmentServicer, GatewayServicer
from authpipe_grants import ConsumerKey, TrustAnchor
from authpipe_sensitive import Label, guard_services
from authpipe_telemetry import TelemetryConfig, configure_telemetry

_LONGEST_MESSAGE = 64 * 1024


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves customers until told to stop."""
    name = Label("gateway/edge")
    files = config.files
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    key = ConsumerKey()
    anchor = TrustAnchor(files.ca.read_bytes(), files.trust_domain)
    vault: Peer[Any] = Peer(config.vault, files, vault_pb2_grpc.VaultStub)
    secrets: Peer[Any] = Peer(config.clientsecrets, files, clientsecrets_pb2_grpc.ClientSecretsStub)
    authority_peer: Peer[Any] = Peer(config.authority, files, authority_pb2_grpc.AuthorityStub)
    coordinator_peer: Peer[Any] = Peer(
        config.coordinator, files, coordinator_pb2_grpc.CoordinatorStub, timeout_seconds=55
    )
    # A grant is bound to the key of the one worker that carries the request.
    worker: Peer[Any] = Peer(config.worker, files, worker_pb2_grpc.WorkerStub, one_replica=True)
    audit_peer: Peer[Any] = Peer(config.audit, files, audit_pb2_grpc.AuditStub)
    where = (config.deployment, config.region)
    vault_client = RecordClient(vault, key, anchor, *where, "user-credentials", _now)
    secrets_client = RecordClient(secrets, key, anchor, *where, "client-secrets", _now)
    authority = AuthorityPeer(authority_peer, key.public)
    coordinator = CoordinatorPeer(coordinator_peer)
    audit = AuditPeer(audit_peer)
    containing = Containing(
        authority,
        ContainmentPeer(Peer(config.coordinator, files, coordinator_pb2_grpc.ContainmentStub)),
        IncidentsPeer(Peer(config.audit, files, audit_pb2_grpc.IncidentsStub)),
    )
    sign_in = SignInPeer(Peer(config.authority, files, members_pb2_grpc.SignInStub))
    members = MembersPeer(Peer(config.authority, files, members_pb2_grpc.MembersStub))
    membering = Membering(authority, members, sign_in)
    serving = Serving(authority, vault_client, coordinator, _now)
    managing = Managing(authority, coordinator, MaskedPeer(vault), MaskedPeer(secrets), audit)
    importing = Importing(authority, coordinator, vault_client, secrets_client)
    behind = (config.authority, config.vault, config.clientsecrets, config.coordinator, config.worker, config.audit)
    probes = [Probe(peer, files) for peer in behind]

    async def is_ready() -> bool:
        return all(await asyncio.gather(*(probe.is_serving() for probe in probes)))

    worker_peer = WorkerPeer(worker)
    proxying = Proxying(authority, coordinator, worker_peer)
    webhooks = Webhooks(authority, coordinator, worker_peer)
    proving = Proving(authority, coordinator, worker_peer)
    sources = Sources(config.trusted_proxies)
    app = EdgeApp(
        Api(managing, importing, webhooks, proving, containing, membering, config.public_url),
        serving,
        proxying,
        coordinator,
        sign_in,
        audit,
        sources,
        is_ready,
        config.security_contact,
    )
    health = Health()
    internal = RpcServer(name, config.server, files, health)
    await internal.start()
    public = _public_grpc(
        config,
        GatewayServicer(serving, managing, importing, webhooks, proving, sources, config.public_url),
        ContainmentServicer(containing, sources),
    )
    await public.start()
    rest = rest_server(app, config.rest, config.public_certificate, config.public_key, config.rest_connections)
    serving_rest = asyncio.create_task(rest.serve(), name="rest")
    await health.serve()
    await stop.wait()
    rest.stop()  # type: ignore[no-untyped-call]  # granian's
    await public.stop(config.grpc.grace_seconds)
    await internal.stop()
    await asyncio.wait([serving_rest], timeout=5)


def _public_grpc(config: Config, servicer: GatewayServicer, containment: ContainmentServicer) -> grpc.aio.Server:
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
            ("grpc.max_connection_age_ms", int(config.grpc.connection_age_seconds * 1000)),
        ]
    )
    guard_services(gateway_pb2.DESCRIPTOR.services_by_name.values())
    gateway_pb2_grpc.add_GatewayServicer_to_server(servicer, server)  # type: ignore[arg-type]  # its methods are coroutines
    gateway_pb2_grpc.add_ContainmentServicer_to_server(containment, server)  # type: ignore[arg-type]  # likewise
    credentials = server_credentials(config.public_key, config.public_certificate)
    server.add_secure_port(f"{config.grpc.host}:{config.grpc.port}", credentials)
    return server


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


if __name__ == "__main__":
    run_process("edge", Config, serve)
