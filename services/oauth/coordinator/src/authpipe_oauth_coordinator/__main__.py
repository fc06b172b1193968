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

from authpipe.clientsecrets.v1 import clientsecrets_pb2_grpc
from authpipe.oauth.v1 import coordinator_pb2, coordinator_pb2_grpc, worker_pb2_grpc
from authpipe.vault.v1 import vault_pb2_grpc
from authpipe_database import Database, Outbox
from authpipe_grants import TrustAnchor, Verifier
from authpipe_grants.leaf import Leaf
from authpipe_oauth_coordinator.config import Config
from authpipe_oauth_coordinator.domain.answers import Answers
from authpipe_oauth_coordinator.domain.connections import Connections
from authpipe_oauth_coordinator.domain.decoys import Decoys
from authpipe_oauth_coordinator.domain.device_flows import DeviceFlows
from authpipe_oauth_coordinator.domain.disconnecting import Disconnecting
from authpipe_oauth_coordinator.domain.entries import Entries
from authpipe_oauth_coordinator.domain.flows import Flows
from authpipe_oauth_coordinator.domain.grants import Grants
from authpipe_oauth_coordinator.domain.health import HealthChecks
from authpipe_oauth_coordinator.domain.imports import Imports
from authpipe_oauth_coordinator.domain.leasing import Leasing
from authpipe_oauth_coordinator.domain.discovering import Discovering
from authpipe_oauth_coordinator.domain.provider_configs import ProviderConfigs
from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.resealing import Resealing
from authpipe_oauth_coordinator.domain.rotating import Rotating
from authpipe_oauth_coordinator.domain.schedule import Schedule
from authpipe_oauth_coordinator.domain.subjects import Subjects
from authpipe_oauth_coordinator.peers import AuditPeer, StorePeer, WorkerPeer
from authpipe_oauth_coordinator.servicer import ActingOf, ContainmentServicer, CoordinatorServicer
from authpipe_oauth_coordinator.store import (
    ConfigTable,
    ConnectionTable,
    DeviceTable,
    EntryTable,
    FlowTable,
    LeaseTable,
    RotationTable,
    SubjectTable,
)
from authpipe_providers import load_catalog
from authpipe_relay import AuditSink, Relay
from authpipe_sensitive import DomainError, Label, get_log
from authpipe_telemetry import TelemetryConfig, configure_telemetry


_Turn = tuple[str, Callable[[], Awaitable[object]], float]


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves coordinator until told to stop."""
    name = Label("oauth/coordinator")
    files = config.files
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    database = Database(config.database)
    await database.open()
    outbox = Outbox()
    own = (database, outbox)
    config_table, connection_table, leases = ConfigTable(*own), ConnectionTable(*own), LeaseTable(*own)
    # A Provider may take its time: half a minute for the worker, which has the shorter limit itself.
    worker_peer: Peer[Any] = Peer(
        config.worker, files, worker_pb2_grpc.WorkerStub, timeout_seconds=50, one_replica=True
    )
    leaf = Leaf(files.certificate, files.key, files.trust_domain, time.time)
    grants = Grants(lambda: leaf.issuer, config.region, time.monotonic)
    worker = WorkerPeer(worker_peer, grants)
    vault: Peer[Any] = Peer(config.vault, files, vault_pb2_grpc.VaultStub)
    client_secrets: Peer[Any] = Peer(config.clientsecrets, files, clientsecrets_pb2_grpc.ClientSecretsStub)
    sink = AuditSink(config.audit, files)
    audit = AuditPeer(sink)
    leasing = Leasing(leases, _holder(), config.lease_seconds)
    jitter, patience = random.SystemRandom().random, dt.timedelta(seconds=config.spool_patience_seconds)
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
    imports = Imports(config_table, entries, connection_table, refreshing, _now, _new_id, jitter)
    connections = Connections(config_table, connection_table, refreshing, grants.for_client, _now)
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
        dt.timedelta(days=config.kept_days),
    )
    devices = DeviceFlows(config_table, connection_table, DeviceTable(*own), worker, audit, _now, _new_id, jitter)
    health_checks = HealthChecks(
        config_table,
        connection_table,
        connection_table,
        refreshing,
        worker,
        _now,
        _new_id,
        jitter,
        dt.timedelta(seconds=config.health_check_seconds or 86_400.0),
    )
    resealing = Resealing(config_table, connection_table, leasing, worker, audit, _now)
    subjects = Subjects(SubjectTable(*own), disconnecting.disconnect, os.urandom)
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
        subjects.pseudonym,
    )
    rotating = Rotating(
        RotationTable(*own),
        connection_table,
        refreshing,
        _new_id,
        most=max(1, config.refreshes_at_once // 4),
        per_provider=config.refreshes_per_provider,
        claim_seconds=config.claim_seconds,
    )
    configs = ProviderConfigs(config_table, worker, StorePeer(client_secrets), entries, _now, _new_id)
    verifier = Verifier(TrustAnchor(files.ca.read_bytes(), files.trust_domain), time.time)
    acting_of = ActingOf(verifier.verify, f"oauth/{config.region}")
    health = Health()
    server = RpcServer(name, config.server, files, health)
    server.add(
        coordinator_pb2.DESCRIPTOR.services_by_name["Coordinator"],
        coordinator_pb2_grpc.add_CoordinatorServicer_to_server,
        CoordinatorServicer(
            configs,
            entries,
            flows,
            imports,
            connections,
            disconnecting,
            answers,
            resealing,
            devices,
            health_checks,
            subjects,
            config_table,
            connection_table,
            acting_of,
        ),
    )
    server.add(
        coordinator_pb2.DESCRIPTOR.services_by_name["Containment"],
        coordinator_pb2_grpc.add_ContainmentServicer_to_server,
        ContainmentServicer(Decoys(connection_table), rotating, acting_of),
    )
    await server.start()
    beside = Background(stop)
    beside.add("audit relay", Relay(database, outbox, sink, leaf.sign_batch, config.database.outbox_rows).run(stop))
    discovering = Discovering(config_table, worker, _new_id, config.discovery_seconds)
    always: list[_Turn] = [
        ("sweep of connections", disconnecting.sweep, config.sweep_seconds),
        ("sweep of flows", flows.sweep, config.sweep_seconds),
        ("sweep of configs", configs.sweep, config.sweep_seconds),
        ("device flows", devices.run, 1.0),
        ("rotations", rotating.run, 1.0),
    ]
    wanted: list[tuple[float, _Turn]] = [
        (config.refresh_ahead, ("schedule of refreshes", schedule.run, config.schedule_seconds)),
        (config.health_check_seconds, ("health checks", health_checks.run, config.sweep_seconds)),
        (config.discovery_seconds, ("discovery", discovering.run, config.sweep_seconds)),
    ]
    _take_turns(beside, [*always, *(turn for is_wanted, turn in wanted if is_wanted)], stop)
    beside.add("health", health.watch(stop, database.check))
    await stop.wait()
    # In this order: what was taken up is finished before what it needs is closed.
    for end in (server.stop, schedule.finish, rotating.finish, beside.finish, database.close):
        await end()


def _take_turns(beside: Background, turns: list[_Turn], stop: asyncio.Event) -> None:
    for what, turn, seconds in turns:
        beside.add(what, _sweep(turn, seconds, stop))


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


def _holder() -> str:
    """Gives by which name this process holds leases."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


if __name__ == "__main__":
    run_process("coordinator", Config, serve)
