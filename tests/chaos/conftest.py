"""A system of its own for what is killed: four coordinators, two workers, a certified Provider, a thousand connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing import failpoints
from authpipe_testing.customer import Customer
from authpipe_testing.oidc import CLIENT_ID, OidcProvider, run_oidc_provider

ROOT = Path(__file__).resolve().parents[2]
COORDINATORS = ("coordinator", "coordinator-2", "coordinator-3", "coordinator-4")
WORKERS = ("worker", "worker-2")
MANY = 1_000
# Every token is in its last quarter of an hour from the beginning: it may be refreshed as soon as it is said to be due.
LIFE_SECONDS = 840
_IMPORTERS = 4

DESK, REFRESH = "authpipe_oauth_worker.domain.desk", "authpipe_oauth_worker.domain.refresh"
REFRESHING = "authpipe_oauth_coordinator.domain.refreshing"
SCHEDULE, UNFINISHED = "authpipe_oauth_coordinator.domain.schedule", "authpipe_oauth_coordinator.domain.unfinished"


def _reach(step: str, indent: int) -> str:
    return f"{' ' * indent}await __import__('authpipe_testing.failpoints', fromlist=['reach']).reach({step!r})\n"


def _before(module: str, text: str, step: str) -> tuple[str, str, str]:
    return module, text, _reach(step, len(text) - len(text.lstrip())) + text


def _after(module: str, text: str, step: str) -> tuple[str, str, str]:
    return module, text, text + _reach(step, len(text) - len(text.lstrip()))


_SEND = "            sent = await self._send(job, old.plaintext, secrets, key)\n"
# Patches of the two processes: at each step of a refresh a failpoint, and a shorter wait for an answer that may not exist.
PATCHES = {
    "coordinator": [
        _after(SCHEDULE, "            claimed = await self._table.claim_due(room, self._per_provider, self._share, going, self._claim_seconds)\n", "claimed"),
        _before(REFRESHING, "        outcome = await self._call(job)\n        return outcome, left_by(outcome, before, meanwhile), again\n", "intent written"),
        _before(REFRESHING, "        await self._end(acting, connection, lease, left, outcome, reauth=reauth)\n", "before the lease is given back"),
        (UNFINISHED, "_UNKNOWN = timedelta(seconds=60)", "_UNKNOWN = timedelta(seconds=3)"),
        (UNFINISHED, "SETTLING = timedelta(seconds=15)", "SETTLING = timedelta(seconds=8)"),
    ],
    "worker": [
        (REFRESH, _SEND, _reach("before the request", 12) + _SEND + _reach("answer received", 12)),
        _before(REFRESH, "            await vault.put([sealed], [], job.credential_grant, job.request_id)\n        except", "before the commit"),
        _before(REFRESH, "        return await self._judge(job, sent, keys, old.version)\n", "after the commit"),
        _after(DESK, "        await self.vault.put(records, ended, job.credential_grant, job.request_id)\n", "tokens in vault"),
    ],
}  # fmt: skip


@dataclass
class Chaos:
    """The system, and what can be done to it."""

    stack: Stack
    provider: OidcProvider
    customer: Customer
    connections: list[str]
    failpoint: Path
    config: str
    _taken: int = field(default=0)

    def database(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Asks coordinator's database, as its superuser."""
        conninfo = self.stack.clusters["core"].conninfo("dba", "coordinator")
        with psycopg.connect(**conninfo, autocommit=True) as core:  # type: ignore[arg-type]
            found = core.execute(statement, values)  # type: ignore[call-overload]
            return list(found.fetchall()) if found.description else []

    def take(self, count: int) -> list[str]:
        """Gives connections that nobody took before."""
        taken = self.connections[self._taken : self._taken + count]
        self._taken += len(taken)
        return taken

    def take_last(self) -> str:
        """Gives a connection, the last one; it belongs to whoever asks, for good."""
        return self.connections.pop()

    def make_due(self, connections: list[str]) -> None:
        """Says that connections are due now; their rows are locked in the order in which coordinator does."""
        self.database(
            "update connections c set refresh_due_at = now() from (select workspace_id, id from connections"
            " where id = any(%s) order by workspace_id, id for update) as w"
            " where c.workspace_id = w.workspace_id and c.id = w.id",
            connections,
        )

    def kill(self, name: str) -> None:
        """Kills a process and waits until it is gone."""
        if pid := self.stack.pid(name):
            os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: not self.stack.pid(name), 10)

    def start(self, name: str) -> None:
        """Starts a process as the mutant with failpoints that it is here, or as it is."""
        kind = name.partition("-")[0]
        if kind in PATCHES:
            self.start_patched(name, PATCHES[kind])
        else:
            self.stack.start(name)

    def start_patched(self, name: str, patches: Sequence[tuple[str, ...]]) -> None:
        """Starts a process as a mutant."""
        kind = name.partition("-")[0]
        file = self.stack.layout.home / f"mutant-{name}.json"
        file.write_text(json.dumps({"module": f"authpipe_oauth_{kind}", "patches": patches}))
        environment = {"AUTHPIPE_MUTANT": str(file), failpoints.ARMED: str(self.failpoint)}
        self.stack.start(name, "authpipe_testing.mutant", environment)

    def holders(self) -> list[str]:
        """Gives the coordinators that hold a lease, by name."""
        found = {
            str(row[0]).split("-")[-2] for row in self.database("select holder from leases where lives_until > now()")
        }
        return [name for name in COORDINATORS if str(self.stack.pid(name)) in found]

    def is_quiet(self) -> bool:
        """Says whether nothing is due and nobody holds a lease."""
        going = self.database("select count(*) from leases where lives_until > now() or unfinished <> ''")
        due = self.database(
            "select count(*) from connections where state = 'active' and refresh_due_at < now() + interval '40 s'"
        )
        return going[0][0] == 0 and due[0][0] == 0

    @staticmethod
    def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
        """Waits until a condition holds and gives what it gave."""
        ends = time.monotonic() + seconds
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                if found := condition():
                    return found
            if time.monotonic() > ends:
                return None
            time.sleep(0.05)


@pytest.fixture(scope="session")
def chaos() -> Iterator[Chaos]:
    """The system with a thousand connections."""
    home = ROOT / ".authpipe" / "test-chaos"
    Stack(home, lambda _: None).erase()
    settings = {
        "coordinator": {
            "claim_seconds": 12,
            "refreshes_per_provider": 500,
            "schedule_seconds": 0.2,
            "lease_seconds": 6,
        },
    }
    replicas = ("coordinator",) * 3 + ("worker",)
    stack = Stack(home, lambda _: None, replicas=replicas, settings=settings)
    stack.up()
    layout = stack.layout
    redirect_uri = f"{layout.rest_url}/oauth/callback"
    with run_oidc_provider(ROOT, home, layout.certificates, stack.public_ca.certificate_file, redirect_uri) as provider:
        _, key = asyncio.run(stack.create_workspace("chaos"))
        with Customer(layout.rest_url, str(stack.public_ca.certificate_file), key.decode()) as customer:
            given = {"client_id": CLIENT_ID, "client_secret": provider.client_secret}
            config = str(customer.configure(provider.issuer, **given)["id"])
            provider.set_life(LIFE_SECONDS)
            connections = _import(customer, config, provider.seed(MANY))
            found = Chaos(stack, provider, customer, connections, home / "failpoint.json", config)
            for name in (*COORDINATORS, *WORKERS):
                found.kill(name)
                found.start(name)
            yield found
    stack.down()


def _import(customer: Customer, config: str, seeded: list[dict[str, str]]) -> list[str]:
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + LIFE_SECONDS))

    def one(numbered: tuple[int, dict[str, str]]) -> str:
        number, tokens = numbered
        body = {
            "kind": "oauth2",
            "end_user_id": f"user-{number}",
            "provider_config_id": config,
            "expire_time": ends,
            **tokens,
        }
        return str(customer.post("/connections", body).raise_for_status().json()["id"])

    with ThreadPoolExecutor(_IMPORTERS) as pool:
        return list(pool.map(one, enumerate(seeded)))
