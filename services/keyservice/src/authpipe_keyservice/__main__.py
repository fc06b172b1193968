"""Puts keyservice together; the only place that knows all of its rooms."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import time
import uuid
from collections.abc import Awaitable, Callable

from authpipe_rpc import Background, Health, RpcServer, run_process  # first: it sets grpc's cipher list
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from authpipe.keyservice.v1 import administration_pb2, administration_pb2_grpc, keyservice_pb2, keyservice_pb2_grpc
from authpipe_database import Database, Outbox
from authpipe_grants import TrustAnchor, Verifier
from authpipe_grants.leaf import Leaf
from authpipe_keyservice.config import Bound, Config
from authpipe_keyservice.domain.bindings import Bindings
from authpipe_keyservice.domain.budgets import Budgets, DistinctWorkspaces
from authpipe_keyservice.domain.customer_keys import CustomerKeys
from authpipe_keyservice.domain.deks import Deks
from authpipe_keyservice.domain.keeping import Keeping
from authpipe_keyservice.domain.keyring import Keyring
from authpipe_keyservice.domain.keys import KeyCache
from authpipe_keyservice.domain.releasing import Releasing
from authpipe_keyservice.domain.remembered import Remembered
from authpipe_keyservice.domain.replicas import Replica
from authpipe_keyservice.domain.rewrapping import Rewrapping
from authpipe_keyservice.domain.rotation import Policy, Rotation
from authpipe_keyservice.domain.workspaces import Workspaces
from authpipe_keyservice.errors import HsmUnavailableError
from authpipe_keyservice.hsm import Hsm
from authpipe_keyservice.kms import Connector
from authpipe_keyservice.servicer import CheckpointSigner, KeyAdministrator, KeyServicer
from authpipe_keyservice.store import (
    CheckpointTable,
    CustomerKeyTable,
    DekTable,
    KekTable,
    KeyTable,
    ReplicaTable,
    WorkspaceTable,
)
from authpipe_keyservice.store.replicas import CHANNEL
from authpipe_relay import AuditSink, Relay
from authpipe_sensitive import DomainError, Label, get_log
from authpipe_telemetry import TelemetryConfig, configure_telemetry, counter, gauge

_SIGNING_KEY = "audit-log-1"
_DAY = 86_400.0
_TURN_SECONDS = 1.0


class _Budget:
    """A budget of the `limits` library, counted in this process."""

    def __init__(self, item: RateLimitItemPerMinute | RateLimitItemPerSecond) -> None:
        self._item = item
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def take(self, name: str, amount: int) -> bool:
        """Takes from what is left."""
        return await self._limiter.hit(self._item, name, cost=amount)


def _budgets(bound: Bound) -> tuple[_Budget, _Budget]:
    # The burst first: what it refuses takes nothing of the minute.
    return _Budget(RateLimitItemPerSecond(bound.second)), _Budget(RateLimitItemPerMinute(bound.minute))


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves one key domain until told to stop."""
    name = Label(f"keyservice/{config.key_domain}")
    configure_telemetry(name, TelemetryConfig(config.telemetry_file, config.trace_ratio))
    hsm = Hsm(config.pkcs11_module, config.token_label, config.pin_file)
    await hsm.open()
    database = Database(config.database)
    await database.open()
    health = Health()
    server = RpcServer(name, config.server, config.files, health)
    beside = Background(stop)
    checks = [hsm.check, database.check]
    if config.key_domain == "audit-log":
        public_key = await hsm.ensure_signing_key(_SIGNING_KEY)
        server.add(
            keyservice_pb2.DESCRIPTOR.services_by_name["CheckpointSigner"],
            keyservice_pb2_grpc.add_CheckpointSignerServicer_to_server,
            CheckpointSigner(hsm, _SIGNING_KEY, public_key, CheckpointTable(database), config.origins),
        )
    else:
        domain = _KeyDomain(config, hsm, database)
        await domain.prepare(stop)
        domain.add_to(server)
        leaf = Leaf(config.files.certificate, config.files.key, config.files.trust_domain, time.time)
        sink = AuditSink(config.sink, config.files)
        beside.add(
            "audit relay", Relay(database, domain.outbox, sink, leaf.sign_batch, config.database.outbox_rows).run(stop)
        )
        domain.run_beside(beside, stop)
        checks.append(domain.keyring.check)
    await server.start()
    # The canary in the token is sealed and opened each time.
    beside.add("health", health.watch(stop, *checks))
    await stop.wait()
    await server.stop()
    await beside.finish()
    await database.close()
    await hsm.close()


class _KeyDomain:
    """The rules of one key domain, with what each stands on."""

    def __init__(self, config: Config, hsm: Hsm, database: Database) -> None:
        self._config = config
        self._database = database
        domain = config.key_domain
        self.outbox = outbox = Outbox()
        self._keks, self._deks = KekTable(database, outbox), DekTable(database, outbox)
        self._replicas, self._workspace_keys = ReplicaTable(database), WorkspaceTable(database, outbox)
        self._keys = KeyTable(database, outbox)
        self._customer_key_table = CustomerKeyTable(database, outbox)
        cache = KeyCache(time.monotonic, config.cache_seconds)
        self._replica = Replica(uuid.uuid4().hex, self._replicas, cache, time.monotonic)
        self.keyring = Keyring(domain, self._replica.name, self._keks, hsm)
        self._customer_keys = CustomerKeys(
            key_domain=domain,
            deployment=config.deployment,
            region=config.region,
            table=self._customer_key_table,
            connect=Connector(
                config.kms,
                lambda token: Hsm(
                    token.module or config.pkcs11_module, token.token_label, token.pin_file, foreign=True
                ),
            ),
            clock=time.monotonic,
        )
        deks = Deks(
            key_domain=domain,
            keyring=self.keyring,
            store=self._deks,
            wrapper=hsm,
            outer=self._customer_keys,
            cache=cache,
            randomness=os.urandom,
        )
        self._rotation = Rotation(
            key_domain=domain,
            keyring=self.keyring,
            table=self._keks,
            wrapper=hsm,
            policy=Policy(config.kek_rotation_days * _DAY, config.kek_grace_days * _DAY),
            clock=time.time,
            randomness=os.urandom,
        )
        rewrapped = counter("authpipe.keyservice.deks.rewrapped")
        left = gauge("authpipe.keyservice.deks.on_older_kek")

        def note(swapped: int, outstanding: int) -> None:
            rewrapped.add(swapped)
            left.set(outstanding)

        self._rewrapping = Rewrapping(
            key_domain=domain,
            keyring=self.keyring,
            table=self._deks,
            wrapper=hsm,
            share=config.rewrap_share,
            clock=time.monotonic,
            note=note,
        )
        self._workspaces = Workspaces(
            key_domain=domain,
            table=self._workspace_keys,
            deks=deks,
            replica=self._replica,
            rotate_seconds=config.dek_rotation_days * _DAY,
            clock=time.time,
            randomness=os.urandom,
        )
        self._bindings = Bindings(
            key_domain=domain,
            table=self._customer_key_table,
            customer_keys=self._customer_keys,
            deks=deks,
            keyring=self.keyring,
            wrapper=hsm,
            replica=self._replica,
            randomness=os.urandom,
        )
        files = config.files
        verifier = Verifier(TrustAnchor(files.ca.read_bytes(), files.trust_domain), time.time)
        self._keeping = Keeping(
            self._keys, verifier.verify, f"{domain}/{config.region}", lambda: dt.datetime.now(dt.UTC)
        )
        self._releasing = Releasing(
            key_domain=domain,
            region=config.region,
            store=self._keys,
            deks=deks,
            verifier=verifier,
            budgets=Budgets(
                per_workspace=_budgets(config.per_workspace),
                per_signer=_budgets(config.per_signer),
                per_consumer=_budgets(config.per_consumer),
                workspaces=DistinctWorkspaces(config.workspaces_minute, time.monotonic),
                refusals=_Budget(RateLimitItemPerSecond(100)),
                alarms=_Budget(RateLimitItemPerMinute(1)),
            ),
            cache=cache,
            remembered=Remembered(time.monotonic, config.cache_seconds),
            clock=time.time,
            randomness=os.urandom,
        )

    async def prepare(self, stop: asyncio.Event) -> None:
        """Joins the replicas and opens every canary; the first one of a key domain makes its first KEK version."""
        while not stop.is_set():
            await self._replica.beat()
            await self._rotation.advance()
            try:
                self.keyring.primary()
                return
            except HsmUnavailableError:
                # Another replica has not opened the canary of the first version yet.
                await _wait(stop, _TURN_SECONDS)

    def add_to(self, server: RpcServer) -> None:
        """Adds what this key domain serves."""
        files = self._config.files
        leaf = Leaf(files.certificate, files.key, files.trust_domain, time.time)
        server.add(
            keyservice_pb2.DESCRIPTOR.services_by_name["KeyService"],
            keyservice_pb2_grpc.add_KeyServiceServicer_to_server,
            KeyServicer(self._releasing, self._keys, self._replica, leaf, self._keeping),
        )
        server.add(
            administration_pb2.DESCRIPTOR.services_by_name["KeyAdministration"],
            administration_pb2_grpc.add_KeyAdministrationServicer_to_server,
            KeyAdministrator(
                key_domain=self._config.key_domain,
                rotation=self._rotation,
                workspaces=self._workspaces,
                keks=self._keks,
                replicas=self._replicas,
                keys=self._workspace_keys,
                bindings=self._bindings,
                customer_keys=self._customer_key_table,
            ),
        )

    def run_beside(self, beside: Background, stop: asyncio.Event) -> None:
        """Starts what goes on beside serving. Each on its own: an HSM that hangs does not stop the heart."""
        told = asyncio.Event()
        beside.add("orders", self._database.listen(CHANNEL, told, stop))
        beside.add("heart", self._turns("heart", self._beat, stop, told))
        beside.add("rotation", self._turns("rotation", self._rotation.advance, stop))
        beside.add("workspaces", self._turns("workspaces", self._workspaces.advance, stop))
        beside.add("customer keys", self._turns("customer-keys", self._bindings.advance, stop))
        beside.add("re-wrapping", self._turns("re-wrapping", self._rewrap, stop))
        beside.add("kept keys", self._turns("kept-keys", self._keeping.sweep, stop))
        beside.add("leaving", self._leave(stop))

    async def _beat(self) -> None:
        if await self._replica.beat():
            self.keyring.prove_anew()

    async def _rewrap(self) -> None:
        progress = await self._rewrapping.run()
        if progress.swapped or progress.refused:
            get_log().info("deks re-wrapped", swapped=progress.swapped, refused=progress.refused)

    async def _leave(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await self._customer_keys.close()
        try:
            await self._replicas.leave(self._replica.name)
        except DomainError as error:
            get_log().warning("left without a word", error=error)

    async def _turns(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        stop: asyncio.Event,
        wake: asyncio.Event | None = None,
    ) -> None:
        """Does something every second, or when woken. What cannot be done now is done in the next turn."""
        while not stop.is_set():
            try:
                await work()
            except DomainError as error:
                get_log().warning("waits for its next turn", work=Label(name), error=error)
            if wake is None:
                await _wait(stop, _TURN_SECONDS)
            else:
                await _wait(wake, _TURN_SECONDS)
                wake.clear()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


if __name__ == "__main__":
    run_process("keyservice", Config, serve)
