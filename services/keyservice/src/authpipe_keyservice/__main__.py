"""Puts keyservice together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import os
import time

from authpipe_rpc import Background, Health, Peer, RpcServer, run_process  # first: it sets grpc's cipher list
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from authpipe.audit.v1 import audit_pb2_grpc
from authpipe.keyservice.v1 import keyservice_pb2, keyservice_pb2_grpc
from authpipe_database import Database, Outbox, Relay
from authpipe_grants import TrustAnchor, Verifier
from authpipe_grants.leaf import Leaf
from authpipe_keyservice.config import Config
from authpipe_keyservice.domain.budgets import Budgets
from authpipe_keyservice.domain.keys import KeyCache, kek_label
from authpipe_keyservice.domain.releasing import Releasing
from authpipe_keyservice.hsm import Hsm
from authpipe_keyservice.peers import AuditPeer
from authpipe_keyservice.servicer import CheckpointSigner, KeyServicer
from authpipe_keyservice.store import Store
from authpipe_sensitive import Label
from authpipe_telemetry import TelemetryConfig, configure_telemetry

_KEK_VERSION = 1
_SIGNING_KEY = "audit-log-1"


class _Budget:
    """A budget of the `limits` library, counted in this process."""

    def __init__(self, item: RateLimitItemPerMinute | RateLimitItemPerSecond) -> None:
        self._item = item
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def take(self, name: str, amount: int) -> bool:
        """Takes from what is left."""
        return await self._limiter.hit(self._item, name, cost=amount)


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves one key domain until told to stop."""
    name = Label(f"keyservice/{config.key_domain}")
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    hsm = Hsm(config.pkcs11_module, config.token_label, config.pin_file)
    await hsm.open()
    database = Database(config.database)
    await database.open()
    outbox = Outbox()
    store = Store(database, outbox)
    health = Health()
    server = RpcServer(name, config.server, config.files, health)
    beside = Background(stop)
    if config.key_domain == "audit-log":
        public_key = await hsm.ensure_signing_key(_SIGNING_KEY)
        server.add(
            keyservice_pb2.DESCRIPTOR.services_by_name["CheckpointSigner"],
            keyservice_pb2_grpc.add_CheckpointSignerServicer_to_server,
            CheckpointSigner(hsm, _SIGNING_KEY, public_key, store),
        )
    else:
        await hsm.ensure_kek(kek_label(config.key_domain, _KEK_VERSION))
        server.add(
            keyservice_pb2.DESCRIPTOR.services_by_name["KeyService"],
            keyservice_pb2_grpc.add_KeyServiceServicer_to_server,
            _key_servicer(config, hsm, store),
        )
        if config.audit is None:
            raise SystemExit("keyservice does not start without an audit sink; set `audit`.")
        peer = Peer(config.audit, config.files, audit_pb2_grpc.AuditStub)
        beside.add("audit relay", Relay(database, outbox, AuditPeer(peer)).run(stop))
    await server.start()
    # The canary in the token is sealed and opened each time.
    beside.add("health", health.watch(stop, hsm.check, database.check))
    await stop.wait()
    await server.stop()
    await beside.finish()
    await database.close()
    await hsm.close()


def _key_servicer(config: Config, hsm: Hsm, store: Store) -> KeyServicer:
    files = config.files
    anchor = TrustAnchor(files.ca.read_bytes(), files.trust_domain)
    releasing = Releasing(
        key_domain=config.key_domain,
        region=config.region,
        kek_version=_KEK_VERSION,
        store=store,
        wrapper=hsm,
        verifier=Verifier(anchor, time.time),
        budgets=Budgets(
            _Budget(RateLimitItemPerMinute(config.release_per_workspace_minute)),
            _Budget(RateLimitItemPerMinute(config.release_per_signer_minute)),
            _Budget(RateLimitItemPerSecond(100)),
        ),
        cache=KeyCache(time.monotonic, config.cache_seconds),
        clock=time.time,
        randomness=os.urandom,
    )
    leaf = Leaf(files.certificate, files.key, files.trust_domain, time.time)
    return KeyServicer(releasing, store, leaf, config.key_domain)


if __name__ == "__main__":
    run_process("keyservice", Config, serve)
