"""Puts audit together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from authpipe_rpc import Background, Health, Peer, RpcServer, run_process  # first: it sets grpc's cipher list

from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe.keyservice.v1 import keyservice_pb2_grpc
from authpipe_audit.config import Config
from authpipe_audit.domain.checkpointing import Checkpoints
from authpipe_audit.domain.detecting.watching import Watching, detectors
from authpipe_audit.domain.evidence import Evidences
from authpipe_audit.domain.exporting import Exporting
from authpipe_audit.domain.incidents import Incidents
from authpipe_audit.domain.publishing import Publishing
from authpipe_audit.domain.retention import Retention
from authpipe_audit.domain.stating import SignedEvents, Statements
from authpipe_audit.domain.trails import Trail
from authpipe_audit.domain.witnesses import Witnesses
from authpipe_audit.peers import SignerPeer
from authpipe_audit.servicer import AuditServicer, IncidentsServicer, workspace_reader
from authpipe_audit.store import (
    CheckpointTable,
    ExportTable,
    IncidentTable,
    Listing,
    Log,
    RetentionTable,
    TreeTable,
    WatchedLog,
    WriteTable,
)
from authpipe_database import Database
from authpipe_grants import Leaf, TrustAnchor, Verifier
from authpipe_sensitive import DomainError, Label, get_log
from authpipe_telemetry import TelemetryConfig, configure_telemetry
from authpipe_transparency import VerifierKey


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves the log until told to stop."""
    name = Label("audit")
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    files = config.files
    database = Database(config.database)
    deleting = Database(config.retention_database)
    await database.open()
    await deleting.open()
    watching_database = Database(config.watch_database)
    await watching_database.open()
    log, tree, checkpoint_table = (
        Log(database, config.origin, os.urandom),
        TreeTable(database),
        CheckpointTable(database),
    )
    anchor = TrustAnchor(files.ca.read_bytes(), files.trust_domain)
    leaf = Leaf(files.certificate, files.key, files.trust_domain, time.time)
    peer: Peer[Any] = Peer(config.signer, files, keyservice_pb2_grpc.CheckpointSignerStub)
    signer = SignerPeer(peer)
    checkpoints = Checkpoints(log, tree, checkpoint_table, signer, config.origin)
    statements = Statements(log, _signing(leaf), time.time_ns, os.urandom)
    retention_table = RetentionTable(database, deleting)
    retention = Retention(retention_table, log, _signing(leaf), time.time_ns, os.urandom, config.retention_days)
    incident_table = IncidentTable(database, log)
    incidents = Incidents(incident_table, _signing(leaf), time.time_ns, os.urandom)
    each = detectors(config.release_bound)
    watching = Watching(WatchedLog(watching_database), incidents, each, time.time, config.remember_seconds)
    workspace_of = workspace_reader(Verifier(anchor, time.time).verify, f"audit/{config.region}")
    health = Health()
    server = RpcServer(name, config.server, files, health)
    server.add(
        audit_pb2.DESCRIPTOR.services_by_name["Audit"],
        audit_pb2_grpc.add_AuditServicer_to_server,
        AuditServicer(
            log,
            Listing(database),
            Publishing(checkpoint_table, tree, config.cosignatures_wanted),
            Witnesses(checkpoint_table, tuple(map(VerifierKey.parse, config.witnesses))),
            Exporting(ExportTable(database), checkpoint_table, log, tree, config.origin, signer),
            WriteTable(database),
            _chains_verifier(anchor),
            workspace_of,
        ),
    )
    server.add(
        audit_pb2.DESCRIPTOR.services_by_name["Incidents"],
        audit_pb2_grpc.add_IncidentsServicer_to_server,
        IncidentsServicer(incidents, incident_table, Evidences(incident_table, checkpoint_table, tree), workspace_of),
    )
    await server.start()
    beside = Background(stop)
    for trail in Trail:
        beside.add(f"checkpoints of {trail.word}", _repeat(stop, checkpoints.advance, trail, config.checkpoint_seconds))
        beside.add(f"statements of {trail.word}", _repeat(stop, statements.state, trail, config.statement_seconds))
        beside.add(f"retention of {trail.word}", _repeat(stop, retention.expire, trail, config.retention_seconds))
    beside.add("detectors", _watch(stop, watching, config.watch_seconds))
    beside.add("health", health.watch(stop, database.check))
    await stop.wait()
    await server.stop()
    await beside.finish()
    await database.close()
    await deleting.close()
    await watching_database.close()


async def _repeat(
    stop: asyncio.Event, work: Callable[[Trail], Awaitable[object]], trail: Trail, every_seconds: float
) -> None:
    """Does something for a trail so often, however long it takes; what fails is told, and tried again."""
    while not stop.is_set():
        next_at = time.monotonic() + every_seconds
        try:
            await work(trail)
        except DomainError as error:
            get_log().warning("not done for a trail", work=Label(work.__name__), trail=Label(trail.word), error=error)
        await _pause(stop, max(0.0, next_at - time.monotonic()))


async def _watch(stop: asyncio.Event, watching: Watching, every_seconds: float) -> None:
    """Watches, or waits until whoever does is gone; what fails is told, and begun again."""
    while not stop.is_set():
        try:
            async with watching.begin() as watcher:
                while watcher is not None and not stop.is_set():
                    # While more waits, without a pause.
                    if not await watcher.look():
                        await _pause(stop, every_seconds)
        except DomainError as error:
            get_log().warning("the log was not watched, it is tried again", error=error)
        await _pause(stop, every_seconds)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def _signing(leaf: Leaf) -> Callable[[int, Sequence[bytes]], SignedEvents]:
    def sign(first_sequence: int, events: Sequence[bytes]) -> SignedEvents:
        return SignedEvents(*leaf.sign_batch(first_sequence, events))

    return sign


def _chains_verifier(anchor: TrustAnchor) -> Callable[[Sequence[bytes]], tuple[object, str]]:
    def verify_chain(chain: Sequence[bytes]) -> tuple[object, str]:
        certificate, path = anchor.verify_chain(chain, dt.datetime.now(dt.UTC))
        return certificate.public_key(), path

    return verify_chain


if __name__ == "__main__":
    run_process("audit", Config, serve)
