"""Puts a store together: the same for both, from what each states about itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from authpipe.keyservice.v1 import keyservice_pb2_grpc
from authpipe_database import Database, Outbox
from authpipe_grants import Leaf, TrustAnchor, Verifier
from authpipe_recordstore.config import StoreConfig
from authpipe_recordstore.domain.records import Records
from authpipe_recordstore.domain.reusing import Reusing
from authpipe_recordstore.peers import KeyservicePeer
from authpipe_recordstore.servicer import RecordServicer
from authpipe_recordstore.store import Store
from authpipe_relay import AuditSink, Relay
from authpipe_rpc import Background, Health, Peer, RpcServer
from authpipe_sensitive import Label
from authpipe_telemetry import TelemetryConfig, configure_telemetry


class _Refusals:
    """So many events about refused uses a second, of one workspace."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerSecond(20)

    async def take(self, name: str) -> bool:
        """Takes one."""
        return await self._limiter.hit(self._item, name)


async def serve_store(
    name: Label,
    key_domain: str,
    service: ServiceDescriptor,
    register: Callable[[Any, grpc.aio.Server], None],
    config: StoreConfig,
    stop: asyncio.Event,
) -> None:
    """Serves a store until told to stop.

    Args:
        name: The SPIFFE path of the store.
        key_domain: The key domain of its records, which grants have to name.
        service: Its service in the protos.
        register: The generated function that adds a servicer.
        config: Its settings.
        stop: Set when it is to stop.
    """
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    database = Database(config.database)
    await database.open()
    keys: Peer[Any] = Peer(config.keyservice, config.files, keyservice_pb2_grpc.KeyServiceStub)
    leaf = Leaf(config.files.certificate, config.files.key, config.files.trust_domain, time.time)
    verifier = Verifier(TrustAnchor(config.files.ca.read_bytes(), config.files.trust_domain), time.time)
    outbox = Outbox()
    store = Store(database, outbox)
    records = Records(store, KeyservicePeer(keys), verifier.verify, _Refusals())
    reusing = Reusing(store, verifier.verify, f"{key_domain}/{config.region}")
    health = Health()
    server = RpcServer(name, config.server, config.files, health)
    server.add(service, register, RecordServicer(records, reusing))
    await server.start()
    beside = Background(stop)
    beside.add(
        "audit relay",
        Relay(
            database, outbox, AuditSink(config.audit, config.files), leaf.sign_batch, config.database.outbox_rows
        ).run(stop),
    )
    beside.add("health", health.watch(stop, database.check))
    await stop.wait()
    await server.stop()
    await beside.finish()
    await database.close()
