"""Puts audit together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from authpipe_rpc import Background, Health, Peer, RpcServer, run_process  # first: it sets grpc's cipher list

from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe.keyservice.v1 import keyservice_pb2_grpc
from authpipe_audit.config import Config
from authpipe_audit.domain.checkpoints import signed_note
from authpipe_audit.peers import SignerPeer
from authpipe_audit.servicer import AuditServicer
from authpipe_audit.store import Store
from authpipe_database import Database
from authpipe_grants import TrustAnchor, Verifier
from authpipe_sensitive import DomainError, Label, get_log
from authpipe_telemetry import TelemetryConfig, configure_telemetry


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves the log until told to stop."""
    name = Label("audit")
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    database = Database(config.database)
    await database.open()
    store = Store(database, os.urandom)
    verifier = Verifier(TrustAnchor(config.files.ca.read_bytes(), config.files.trust_domain), time.time)
    health = Health()
    server = RpcServer(name, config.server, config.files, health)
    server.add(
        audit_pb2.DESCRIPTOR.services_by_name["Audit"],
        audit_pb2_grpc.add_AuditServicer_to_server,
        AuditServicer(store, verifier.verify, f"audit/{config.region}"),
    )
    await server.start()
    peer: Peer[Any] = Peer(config.signer, config.files, keyservice_pb2_grpc.CheckpointSignerStub)
    beside = Background(stop)
    beside.add("checkpoints", _sign_checkpoints(store, SignerPeer(peer), config.origin, stop))
    beside.add("health", health.watch(stop, database.check))
    await stop.wait()
    await server.stop()
    await beside.finish()
    await database.close()


async def _sign_checkpoints(store: Store, signer: SignerPeer, origin: str, stop: asyncio.Event) -> None:
    """Has a checkpoint signed every second in which the tree grew."""
    signed = 0
    while not stop.is_set():
        try:
            frontier = await store.frontier()
            if frontier.size > signed:
                root = frontier.root()
                signature = await signer.sign(origin, frontier.size, root)
                note = signed_note(origin, frontier.size, root, await signer.public_key(), signature)
                await store.put_checkpoint(frontier.size, note)
                signed = frontier.size
        except DomainError as error:
            get_log().warning("checkpoint not signed", error=error)
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            continue


if __name__ == "__main__":
    run_process("audit", Config, serve)
