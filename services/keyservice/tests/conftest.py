"""Replicas of keyservice without their wire: its rules over real tables in PostgreSQL and a token that a test can fail."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import authpipe_keyservice
import psycopg
import pytest
import sqlalchemy as sa
from authpipe_database import Database, DatabaseConfig, Outbox
from authpipe_keyservice.domain.bindings import Bindings
from authpipe_keyservice.domain.customer_keys import CustomerKeys
from authpipe_keyservice.domain.deks import Deks
from authpipe_keyservice.domain.keyring import Keyring
from authpipe_keyservice.domain.keys import KeyCache
from authpipe_keyservice.domain.replicas import Replica
from authpipe_keyservice.domain.rewrapping import Rewrapping
from authpipe_keyservice.domain.rotation import Policy, Rotation
from authpipe_keyservice.domain.workspaces import Workspaces
from authpipe_keyservice.errors import HsmUnavailableError, KeyTamperedError
from authpipe_keyservice.store import CustomerKeyTable, DekTable, KekTable, KeyTable, ReplicaTable, WorkspaceTable
from authpipe_testing.database import own_database
from authpipe_testing.postgres import Cluster
from authpipe_transparency import decode_event
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MIGRATIONS = Path(authpipe_keyservice.__file__).parent / "migrations"


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DatabaseConfig, Cluster]]:
    """A migrated database of keyservice's own, with its cluster."""
    with own_database(tmp_path_factory.mktemp("postgres"), "keyservice_user_credentials", MIGRATIONS) as made:
        yield made


@pytest.fixture(scope="session")
def own_cluster(own: tuple[DatabaseConfig, Cluster]) -> Cluster:
    """That database's cluster."""
    return own[1]


@pytest.fixture(scope="session")
async def database(own: tuple[DatabaseConfig, Cluster]) -> AsyncIterator[Database]:
    """That database, open."""
    opened = Database(own[0])
    await opened.open()
    yield opened
    await opened.close()


class Token:
    """A token as a double: KEKs by their labels, AES-256-GCM, and a call that fails when a test says so.

    Attributes:
        keys: The KEKs.
        fails_at: The number of the call that fails; 0: none.
        calls: How many there were.
    """

    def __init__(self) -> None:
        self.keys: dict[str, AESGCM] = {}
        self.fails_at = 0
        self.calls = 0

    def _step(self) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise Killed

    async def make(self, label: str) -> None:
        self._step()
        self.keys.setdefault(label, AESGCM(os.urandom(32)))
        await asyncio.sleep(0)

    async def destroy(self, label: str) -> None:
        self._step()
        self.keys.pop(label, None)
        await asyncio.sleep(0)

    async def wrap(self, label: str, key: bytes, aad: bytes) -> bytes:
        self._step()
        await asyncio.sleep(0)
        return self._wrap(label, key, aad)

    async def unwrap(self, label: str, wrapped: bytes, aad: bytes) -> bytes:
        self._step()
        await asyncio.sleep(0)
        return self._unwrap(label, wrapped, aad)

    async def rewrap(self, old: str, new: str, items: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        self._step()
        await asyncio.sleep(0)
        done: list[bytes | None] = []
        for wrapped, aad in items:
            try:
                done.append(self._wrap(new, self._unwrap(old, wrapped, aad), aad))
            except KeyTamperedError:
                done.append(None)
        return done

    def _wrap(self, label: str, key: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._find(label).encrypt(nonce, key, aad)

    def _unwrap(self, label: str, wrapped: bytes, aad: bytes) -> bytes:
        try:
            return self._find(label).decrypt(wrapped[:12], wrapped[12:], aad)
        except (InvalidTag, ValueError):
            raise KeyTamperedError from None

    def _find(self, label: str) -> AESGCM:
        if label not in self.keys:
            raise HsmUnavailableError
        return self.keys[label]


class CustomerKms:
    """A customer's KMS as a double: it binds the context, and says no, hangs or dies when a test says so."""

    def __init__(self) -> None:
        self._key = AESGCM(os.urandom(32))
        self.fails: BaseException | None = None
        self.fails_after = -1
        self.hangs: asyncio.Event | None = None
        self.calls = 0

    async def wrap(self, payload: bytes, context: Mapping[str, str]) -> bytes:
        await self._step()
        nonce = os.urandom(12)
        return nonce + self._key.encrypt(nonce, payload, repr(sorted(context.items())).encode())

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        await self._step()
        try:
            return self._key.decrypt(wrapped[:12], wrapped[12:], repr(sorted(context.items())).encode())
        except (InvalidTag, ValueError):
            raise KeyTamperedError from None

    async def describe(self) -> str:
        await self._step()
        return "double"

    async def close(self) -> None: ...

    async def _step(self) -> None:
        self.calls += 1
        if self.hangs is not None:
            await self.hangs.wait()
        if self.fails is not None and self.calls > self.fails_after:
            raise self.fails


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Node:
    """A replica of keyservice without its wire: the rules over real tables and a token."""

    replica: Replica
    keyring: Keyring
    rotation: Rotation
    rewrapping: Rewrapping
    deks: Deks
    workspaces: Workspaces
    cache: KeyCache
    table: KekTable
    dek_table: DekTable
    key_table: KeyTable
    workspace_table: WorkspaceTable
    token: Token
    bindings: Bindings
    customer_keys: CustomerKeys
    customer_key_table: CustomerKeyTable
    rewrapped: list[tuple[int, int]]

    async def settle(self) -> None:
        """Lives for some turns."""
        for _ in range(3):
            if await self.replica.beat():
                self.keyring.prove_anew()
            await self.rotation.advance()
        await self.rewrapping.run()
        await self.rotation.advance()


DOMAIN = "user-credentials"


@dataclass
class Stage:
    """What a test plays with.

    Args:
        node: Makes a replica: a token, a clock, when keys rotate.
    """

    node: Callable[..., Node]
    token: type[Token] = Token
    clock: type[Clock] = Clock
    killed: type[Killed] = Killed
    customer_kms: type[CustomerKms] = CustomerKms
    kms: dict[str, CustomerKms] = field(default_factory=dict)


@pytest.fixture
async def clean(database: Database) -> Database:
    """The database without a row."""
    async with database.transaction() as connection:
        for table in ("kek_proofs", "replicas", "cache_orders", "workspace_erasures", "retired_connection_keys"):
            await connection.execute(sa.text(f"delete from {table}"))
    return database


@pytest.fixture
async def stage(clean: Database, own_cluster: Cluster) -> Stage:
    """A stage without a key on it."""
    with psycopg.connect(**own_cluster.conninfo("dba", "keyservice_user_credentials"), autocommit=True) as dba:  # type: ignore[arg-type]
        dba.execute("truncate kek_versions, deks, customer_keys, connection_keys, floors, audit_outbox")

    kms: dict[str, CustomerKms] = {}

    def make(token: Token, clock: Clock | None = None, rotate_days: float = 90, grace_days: float = 30) -> Node:
        outbox = Outbox()
        now = clock or Clock()
        keks, dek_table = KekTable(clean, outbox), DekTable(clean, outbox)
        keys, workspace_table = KeyTable(clean, outbox), WorkspaceTable(clean, outbox)
        cache = KeyCache(now, 300)
        replica = Replica(secrets.token_hex(8), ReplicaTable(clean), cache, time.monotonic)
        keyring = Keyring(DOMAIN, replica.name, keks, token)
        customer_key_table = CustomerKeyTable(clean, outbox)
        customer_keys = CustomerKeys(
            key_domain=DOMAIN,
            deployment="installation",
            region="eu",
            table=customer_key_table,
            connect=lambda binding: kms[binding.locator["kms"]],
            clock=now,
        )
        deks = Deks(
            key_domain=DOMAIN,
            keyring=keyring,
            store=dek_table,
            wrapper=token,
            outer=customer_keys,
            cache=cache,
            randomness=os.urandom,
        )
        bindings = Bindings(
            key_domain=DOMAIN,
            table=customer_key_table,
            customer_keys=customer_keys,
            deks=deks,
            keyring=keyring,
            wrapper=token,
            replica=replica,
            randomness=os.urandom,
        )
        rewrapped: list[tuple[int, int]] = []
        return Node(
            replica=replica,
            keyring=keyring,
            rotation=Rotation(
                key_domain=DOMAIN,
                keyring=keyring,
                table=keks,
                wrapper=token,
                policy=Policy(rotate_days * 86_400, grace_days * 86_400),
                clock=now,
                randomness=os.urandom,
            ),
            rewrapping=Rewrapping(
                key_domain=DOMAIN,
                keyring=keyring,
                table=dek_table,
                wrapper=token,
                share=1.0,
                clock=time.monotonic,
                note=lambda swapped, left: rewrapped.append((swapped, left)),
            ),
            deks=deks,
            workspaces=Workspaces(
                key_domain=DOMAIN,
                table=workspace_table,
                deks=deks,
                replica=replica,
                rotate_seconds=365 * 86_400,
                clock=now,
                randomness=os.urandom,
            ),
            cache=cache,
            table=keks,
            dek_table=dek_table,
            key_table=keys,
            workspace_table=workspace_table,
            token=token,
            bindings=bindings,
            customer_keys=customer_keys,
            customer_key_table=customer_key_table,
            rewrapped=rewrapped,
        )

    return Stage(make, kms=kms)


@pytest.fixture
async def events(clean: Database) -> Callable[[], Awaitable[list[str]]]:
    """Gives the names of the events that were written, oldest first."""

    async def read() -> list[str]:
        async with clean.transaction() as connection:
            rows = await connection.scalars(sa.text("select unnest(events) from audit_outbox order by id"))
            return [decode_event(bytes(row))["name"] for row in rows]

    return read
