"""Puts edge together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

from authpipe_rpc import Health, Peer, Probe, RpcServer, run_process  # first: it sets grpc's cipher list

from authpipe.audit.v1 import audit_pb2_grpc
from authpipe.authority.v1 import authority_pb2_grpc, members_pb2_grpc
from authpipe.clientsecrets.v1 import clientsecrets_pb2_grpc
from authpipe.oauth.v1 import coordinator_pb2_grpc, worker_pb2_grpc
from authpipe.vault.v1 import vault_pb2_grpc
from authpipe_consumer import RecordClient, StoreCaller
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
from authpipe_gateway_edge.servicer import ContainmentServicer, GatewayServicer, grpc_server
from authpipe_grants import ConsumerKey, TrustAnchor
from authpipe_sensitive import Label
from authpipe_telemetry import TelemetryConfig, configure_telemetry


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
    vault_client = RecordClient(StoreCaller(vault, key, anchor, *where, "user-credentials", _now))
    secrets_client = RecordClient(StoreCaller(secrets, key, anchor, *where, "client-secrets", _now))
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
    public = grpc_server(
        GatewayServicer(serving, managing, importing, webhooks, proving, sources, config.public_url),
        ContainmentServicer(containing, sources),
        config.grpc,
        config.public_certificate,
        config.public_key,
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


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


if __name__ == "__main__":
    run_process("edge", Config, serve)
