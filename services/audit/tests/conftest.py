"""The log on a real PostgreSQL, and emitters who sign."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from authpipe_audit.domain.growing import Batch
from authpipe_audit.domain.reading import new_event
from authpipe_audit.domain.stating import SignedEvents
from authpipe_audit.store import Log
from authpipe_cli.emitters import verifier
from authpipe_database import Database, DatabaseConfig
from authpipe_grants import Leaf
from authpipe_testing.ca import CertificateAuthority
from authpipe_testing.database import config_of, own_database
from authpipe_testing.postgres import Cluster
from authpipe_transparency import encode_event, time_text

NAME = "example.com/log"
TRUST_DOMAIN = "authpipe.test"
# For as long as the clocks of tests are put ahead.
CERTIFIED = dt.timedelta(days=100)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DatabaseConfig, Cluster]]:
    """A cluster with audit's database and role."""
    migrations = Path(__file__).parents[1] / "src" / "authpipe_audit" / "migrations"
    with own_database(
        tmp_path_factory.mktemp("database"), "audit", migrations, ("audit_retention", "audit_watch")
    ) as made:
        yield made


@pytest.fixture
def superuser(server: tuple[DatabaseConfig, Cluster]) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """PostgreSQL's superuser."""
    with psycopg.connect(**server[1].conninfo("dba", "audit"), autocommit=True) as dba:  # type: ignore[arg-type]
        yield dba


@pytest.fixture
async def database(
    server: tuple[DatabaseConfig, Cluster], superuser: psycopg.Connection[tuple[object, ...]]
) -> AsyncIterator[Database]:
    """An empty log. What a test that failed has left open is ended first: it holds locks."""
    superuser.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'audit' and pid <> pg_backend_pid()"
    )
    superuser.execute(
        "truncate leaves, bodies, batches, certificates, tile_hashes, tree_heads, checkpoints, cosignatures,"
        " incidents, incident_evidence, incident_changes, notices_delivered, profiles; update watched set next_leaf = 0"
    )
    made = Database(server[0])
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def deleting(server: tuple[DatabaseConfig, Cluster], database: Database) -> AsyncIterator[Database]:
    """The same log, as the role that deletes bodies."""
    del database
    made = Database(config_of(server[1], "audit", "audit_retention"))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def watch_database(server: tuple[DatabaseConfig, Cluster], database: Database) -> AsyncIterator[Database]:
    """The same log, as the role that watches."""
    del database
    made = Database(config_of(server[1], "audit", "audit_watch"))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def log(database: Database) -> Log:
    """The log."""
    return Log(database, NAME, os.urandom)


class Emit:
    """Makes what emitters send.

    Args:
        folder: Where their certificates are.

    Attributes:
        verify_chain: Verifies them, as an auditor does who knows the CA.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = CertificateAuthority(folder, "ca")
        self._leaves: dict[str, Leaf] = {}
        self.verify_chain = verifier(self._ca.certificate_file, TRUST_DOMAIN)

    def leaf(self, emitter: str) -> Leaf:
        """Gives an emitter's certificate and key."""
        if emitter not in self._leaves:
            name = emitter.replace("/", "-")
            uri = f"spiffe://{TRUST_DOMAIN}/{emitter}"
            files = self._ca.issue(
                self._folder, name, common_name=name, uris=(uri,), dns=(f"{name}.example",), life=CERTIFIED
            )
            self._leaves[emitter] = Leaf(files.certificate, files.key, TRUST_DOMAIN, time.time)
        return self._leaves[emitter]

    def signed(self, emitter: str, first: int, events: Sequence[bytes]) -> SignedEvents:
        """Signs events as an emitter."""
        return SignedEvents(*self.leaf(emitter).sign_batch(first, events))

    @staticmethod
    def event(request: str, workspace: str = "ws_1", name: str = "TOKEN_REFRESHED") -> bytes:
        """Gives an encoded event."""
        return encode_event(
            {
                "actor": "service:test",
                "id": os.urandom(16).hex(),
                "name": name,
                "outcome": "SUCCEEDED",
                "request": request,
                "time": time_text(time.time_ns()),
                "workspace": workspace,
            }
        )

    def batch(self, first: int, *events: bytes, emitter: str = "vault") -> Batch:
        """Gives a signed batch."""
        signed = self.signed(emitter, first, events)
        return Batch(emitter, first, [new_event(each) for each in events], signed.signature, signed.chain)


@pytest.fixture(scope="session")
def emit(tmp_path_factory: pytest.TempPathFactory) -> Emit:
    """Makes what emitters send."""
    return Emit(tmp_path_factory.mktemp("emitters"))


@pytest.fixture
def rows(superuser: psycopg.Connection[tuple[object, ...]]) -> Callable[[str], list[tuple[object, ...]]]:
    """Reads what is stored."""
    return lambda query: superuser.execute(query.encode()).fetchall()
