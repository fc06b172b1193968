"""Puts authority together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from authpipe_rpc import Background, Health, RpcServer, run_process  # first: it sets grpc's cipher list
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from authpipe.authority.v1 import authority_pb2, authority_pb2_grpc
from authpipe_database import Database, Outbox
from authpipe_gateway_authority.config import Config
from authpipe_gateway_authority.domain.containing import Containing
from authpipe_gateway_authority.domain.sessions import Sessions
from authpipe_gateway_authority.domain.violations import Violations
from authpipe_gateway_authority.servicer import AuthorityServicer
from authpipe_gateway_authority.store import Store
from authpipe_grants import TrustAnchor, Verifier
from authpipe_grants.leaf import Leaf
from authpipe_relay import AuditSink, Relay
from authpipe_sensitive import Label, Secret
from authpipe_telemetry import TelemetryConfig, configure_telemetry

_KEY_SIZE = 32


class _Budget:
    """Ten events about refusals a second and workspace."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerSecond(10)

    async def take(self, name: str) -> bool:
        """Takes one."""
        return await self._limiter.hit(self._item, name)


def _read_keys(file: Path) -> tuple[Secret, Secret]:
    """Reads the key of the rows' MAC and the key of the API keys' hash."""
    buffer = bytearray(2 * _KEY_SIZE + 1)
    with file.open("rb", buffering=0) as opened:
        size = opened.readinto(buffer)
    if size != 2 * _KEY_SIZE:
        raise SystemExit("The MAC key file has to have 64 random bytes.")
    with Secret.adopt(buffer):
        return Secret(buffer[:_KEY_SIZE]), Secret(buffer[_KEY_SIZE:size])


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves authority until told to stop."""
    name = Label("gateway/authority")
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    mac_key, hash_key = _read_keys(config.mac_key_file)
    database = Database(config.database)
    await database.open()
    outbox = Outbox()
    store = Store(database, outbox, mac_key)
    leaf = Leaf(config.files.certificate, config.files.key, config.files.trust_domain, time.time)
    sessions = Sessions(
        store=store,
        mac_key=mac_key,
        issuer=lambda: leaf.issuer,
        region=config.region,
        refusals=_Budget(),
        clock=time.time,
        keep_seconds=config.reuse_ms / 1000,
    )
    anchor = TrustAnchor(config.files.ca.read_bytes(), config.files.trust_domain)
    verifier = Verifier(anchor, time.time)
    containing = Containing(store, verifier.verify, f"gateway/{config.region}", sessions.forget)
    health = Health()
    server = RpcServer(name, config.server, config.files, health)
    server.add(
        authority_pb2.DESCRIPTOR.services_by_name["Authority"],
        authority_pb2_grpc.add_AuthorityServicer_to_server,
        AuthorityServicer(
            sessions,
            Violations(store, verifier.verify),
            containing,
            store,
            hash_key,
            config.key_kind,
            config.reuse_ms,
            os.urandom,
        ),
    )
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


if __name__ == "__main__":
    run_process("authority", Config, serve)
