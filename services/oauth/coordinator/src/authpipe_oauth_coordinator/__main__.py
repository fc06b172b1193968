"""Puts coordinator together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from authpipe_rpc import Background, Health, Peer, RpcServer, run_process  # first: it sets grpc's cipher list

from authpipe.audit.v1 import audit_pb2_grpc
from authpipe.clientsecrets.v1 import clientsecrets_pb2_grpc
from authpipe.oauth.v1 import coordinator_pb2, coordinator_pb2_grpc, worker_pb2_grpc
from authpipe.vault.v1 import vault_pb2_grpc
from authpipe_database import Database, Outbox, Relay
from authpipe_grants import TrustAnchor, Verifier
from authpipe_grants.leaf import Leaf
from authpipe_oauth_coordinator.config import Config
from authpipe_oauth_coordinator.domain.answers import Answers
from authpipe_oauth_coordinator.domain.connections import Connections
from authpipe_oauth_coordinator.domain.disconnecting import Disconnecting
from authpipe_oauth_coordinator.domain.entries import Entries
from authpipe_oauth_coordinator.domain.flows import Flows
from authpipe_oauth_coordinator.domain.grants import Grants
from authpipe_oauth_coordinator.domain.leasing import Leasing
from authpipe_oauth_coordinator.domain.provider_configs import ProviderConfigs
from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.resealing import Resealing
from authpipe_oauth_coordinator.domain.schedule import Schedule
from authpipe_oauth_coordinator.peers import AuditPeer, StorePeer, WorkerPeer
from authpipe_oauth_coordinator.servicer import CoordinatorServicer
from authpipe_oauth_coordinator.store import ConfigTable, ConnectionTable, EntryTable, FlowTable, LeaseTable
from authpipe_providers import load_catalog
from authpipe_sensitive import DomainError, Label, get_log
from authpipe_telemetry import TelemetryConfig, configure_telemetry


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves coordinator until told to stop."""
    name = Label("oauth/coordinator")
    files = config.files
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    database = Database(config.database)
    await database.open()
    outbox = Outbox()
    own = (database, outbox)
    config_table, connection_table = ConfigTable(*own), ConnectionTable(*own)
    leaf = Leaf(files.certificate, files.key, files.trust_domain, time.time)
    # A Provider may take its time: half a minute for the worker, which has the shorter limit itself.
    worker_peer: Peer[Any] = Peer(config.worker, files, worker_pb2_grpc.WorkerStub, timeout_seconds=50, one_replica=True)
    grants = Grants(lambda: leaf.issuer, config.region)
    worker = WorkerPeer(worker_peer, grants)
    vault: Peer[Any] = Peer(config.vault, files, vault_pb2_grpc.VaultStub)
    client_secrets: Peer[Any] = Peer(config.clientsecrets, files, clientsecrets_pb2_grpc.ClientSecretsStub)
    audit_peer: Peer[Any] = Peer(config.audit, files, audit_pb2_grpc.AuditStub, timeout_seconds=3)
    audit = AuditPeer(audit_peer)
    holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    leases = LeaseTable(*own)
    leasing = Leasing(leases, holder, config.lease_seconds)
    patience = dt.timedelta(seconds=config.spool_patience_seconds)
    jitter = random.SystemRandom().random
    refreshing = Refreshing(config_table, connection_table, leasing, worker, audit, _now, patience, jitter)
    schedule = Schedule(
        connection_table,
        refreshing,
        _new_id,
        most=config.refreshes_at_once,
        per_provider=config.refreshes_per_provider,
        claim_seconds=config.claim_seconds,
    )
    entries = Entries(EntryTable(*own), load_catalog())
    answers = Answers(connection_table, leases, refreshing, grants.for_answer)
    connections = Connections(config_table, entries, connection_table, refreshing, _now, _new_id, jitter)
    disconnecting = Disconnecting(
        config_table,
        connection_table,
        worker,
        StorePeer(vault),
        _now,
        _new_id,
        jitter,
        config.lease_seconds,
        dt.timedelta(seconds=config.revocation_patience_seconds),
    )
    resealing = Resealing(config_table, connection_table, leasing, worker, audit, _now)
    flows = Flows(
        config_table,
        FlowTable(*own),
        connection_table,
        leasing,
        worker,
        StorePeer(vault),
        audit,
        _now,
        _new_id,
        lambda: secrets.token_urlsafe(32),
        jitter,
    )
    configs = ProviderConfigs(config_table, worker, StorePeer(client_secrets), entries, _now, _new_id)
    verifier = Verifier(TrustAnchor(files.ca.read_bytes(), files.trust_domain), time.time)
    health = Health()
    server = RpcServer(name, config.server, files, health)
    server.add(
        coordinator_pb2.DESCRIPTOR.services_by_name["Coordinator"],
        coordinator_pb2_grpc.add_CoordinatorServicer_to_server,
        CoordinatorServicer(
            configs,
            entries,
            flows,
            connections,
            disconnecting,
            answers,
            resealing,
            config_table,
            connection_table,
            verifier.verify,
            f"oauth/{config.region}",
        ),
    )
    await server.start()
    beside = Background(stop)
    beside.add("audit relay", Relay(database, outbox, audit).run(stop))
    for what, sweep in (("connections", disconnecting.sweep), ("flows", flows.sweep), ("configs", configs.sweep)):
        beside.add(f"sweep of {what}", _sweep(sweep, config.sweep_seconds, stop))
    if config.refresh_ahead:
        beside.add("schedule of refreshes", _sweep(schedule.run, config.schedule_seconds, stop))
    beside.add("health", health.watch(stop, database.check))
    await stop.wait()
    await server.stop()
    await schedule.finish()
    await beside.finish()
    await database.close()


async def _sweep(sweep: Callable[[], Awaitable[object]], seconds: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await sweep()
        except DomainError as error:
            get_log().warning("sweep not finished", error=error)
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            continue


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


if __name__ == "__main__":
    run_process("coordinator", Config, serve)
