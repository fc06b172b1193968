"""Puts authority together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from authpipe_rpc import Background, Health, RpcServer, run_process  # first: it sets grpc's cipher list
from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from authpipe.authority.v1 import authority_pb2, authority_pb2_grpc, members_pb2, members_pb2_grpc
from authpipe_database import Database, Outbox
from authpipe_gateway_authority.config import Config
from authpipe_gateway_authority.domain.acting import Actors
from authpipe_gateway_authority.domain.authorizing import Authorizing
from authpipe_gateway_authority.domain.challenges import Challenges
from authpipe_gateway_authority.domain.containing import Containing
from authpipe_gateway_authority.domain.issuing import Issuing
from authpipe_gateway_authority.domain.membership import Membership
from authpipe_gateway_authority.domain.signing_in import SigningIn
from authpipe_gateway_authority.domain.violations import Violations
from authpipe_gateway_authority.domain.workspaces import Workspaces
from authpipe_gateway_authority.passkeys import WebAuthn
from authpipe_gateway_authority.servicer import AuthorityServicer, MembersServicer, SignInServicer
from authpipe_gateway_authority.store import MemberStore, Store
from authpipe_grants import TrustAnchor, Verifier
from authpipe_grants.leaf import Leaf
from authpipe_relay import AuditSink, Relay
from authpipe_sensitive import Label, Secret
from authpipe_telemetry import TelemetryConfig, configure_telemetry

_KEY_SIZE = 32


# Events about refusals, for each workspace; tries to sign in, for each address.
_REFUSALS, _TRIES = RateLimitItemPerSecond(10), RateLimitItemPerMinute(30)


class _Budget:
    """So much for each name.

    Args:
        item: How much.
    """

    def __init__(self, item: RateLimitItem) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._item = item

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
    refusals = _Budget(_REFUSALS)
    authorizing = Authorizing(
        store=store,
        mac_key=mac_key,
        issuer=lambda: leaf.issuer,
        region=config.region,
        refusals=refusals,
        clock=time.time,
        keep_seconds=config.reuse_ms / 1000,
    )
    anchor = TrustAnchor(config.files.ca.read_bytes(), config.files.trust_domain)
    verifier = Verifier(anchor, time.time)
    actors = Actors(verifier.verify, f"gateway/{config.region}")
    members = MemberStore(database, outbox, mac_key)
    signing_in = SigningIn(
        store=members,
        passkeys=WebAuthn(config.dashboard_url),
        challenges=Challenges(mac_key, os.urandom, time.time),
        mac_key=mac_key,
        refusals=refusals,
        tries=_Budget(_TRIES),
        clock=time.time,
        session_seconds=config.session_seconds,
    )
    membership = Membership(members, actors, refusals, time.time, authorizing.forget)
    health = Health()
    server = RpcServer(name, config.server, config.files, health)
    server.add(
        authority_pb2.DESCRIPTOR.services_by_name["Authority"],
        authority_pb2_grpc.add_AuthorityServicer_to_server,
        AuthorityServicer(
            authorizing,
            Violations(store, verifier.verify),
            Containing(store, actors, authorizing.forget),
            Issuing(store, authorizing.forget),
            Workspaces(store),
            hash_key,
            config.key_kind,
            config.reuse_ms,
            os.urandom,
        ),
    )
    server.add(
        members_pb2.DESCRIPTOR.services_by_name["Members"],
        members_pb2_grpc.add_MembersServicer_to_server,
        MembersServicer(membership, hash_key, config.key_kind, os.urandom, config.dashboard_url),
    )
    server.add(
        members_pb2.DESCRIPTOR.services_by_name["SignIn"],
        members_pb2_grpc.add_SignInServicer_to_server,
        SignInServicer(signing_in, hash_key, config.key_kind, os.urandom, authorizing.forget),
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
