"""Refreshes: how many a second the schedule carries out, how late they are, and a thousand callers on one ended token."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import serving
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

SETTINGS = {"refreshes_per_provider": 100_000}
# Always within keyservice's last quarter of an hour: a token may be refreshed whenever it is said to be due.
LIFE_SECONDS = 840
CONNECTIONS = 1_500
SECONDS = 60
# A million tokens that live an hour, and what has waited a moment.
ASKED, WANTED = 330.0, 300.0
CALLERS = 1_000
SLOW_SECONDS = 1.0
_IMPORTERS = 8
# Rows are locked in the order in which coordinator does.
_DUE = """
update connections c set refresh_due_at = now()
from (select workspace_id, id from connections where id = any(%s) order by workspace_id, id for update) as w
where c.workspace_id = w.workspace_id and c.id = w.id
"""
_NOT_DUE = """
update connections c set refresh_due_at = '2100-01-01'
from (select workspace_id, id from connections order by workspace_id, id for update) as w
where c.workspace_id = w.workspace_id and c.id = w.id
"""


async def provider(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A Provider that gives tokens at once; at /token/slow after a second."""
    if scope["type"] != "http":
        return
    # A server ends the connection of a request that nobody reads to its end.
    while (await receive()).get("more_body"):
        pass
    if scope["path"].endswith("/slow"):
        await asyncio.sleep(SLOW_SECONDS)
    given = {
        "access_token": secrets.token_urlsafe(32),
        "refresh_token": secrets.token_urlsafe(32),
        "token_type": "Bearer",
        "expires_in": LIFE_SECONDS,
    }
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(given).encode()})


def running_provider(stack: Stack, folder: Path) -> AbstractContextManager[str]:
    """Runs the Provider; gives its URL."""
    return serving.running(stack, folder, "refreshing:provider")


@dataclass(frozen=True)
class Scheduled:
    """What the schedule did.

    Args:
        asked: How many refreshes a second it was asked for.
        rate: How many a second it carried out.
        late_p99: How many seconds after they were due, of a hundred the latest but one.
        bare: How many requests a second the Provider answers to a client that does nothing else.
    """

    asked: float
    rate: float
    late_p99: float
    bare: float


def connect(customer: Customer, url: str, count: int) -> list[str]:
    """Imports connections at the Provider."""
    body = {
        "authorization_endpoint": f"{url}/authorize",
        "token_endpoint": f"{url}/token",
        "client_id": "bench",
        "client_secret": "a-client-secret-of-the-bench-0123456789",
    }
    config = customer.post("/provider-configs", body).raise_for_status().json()["id"]
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + LIFE_SECONDS))

    def one(number: int) -> str:
        tokens = {
            "access_token": f"access-of-the-bench-{number:06}",
            "refresh_token": f"refresh-of-the-bench-{number:06}",
        }
        given = {"kind": "oauth2", "end_user_id": f"user-{number}", "provider_config_id": config, "expire_time": ends}
        return str(customer.post("/connections", given | tokens).raise_for_status().json()["id"])

    with ThreadPoolExecutor(_IMPORTERS) as pool:
        return list(pool.map(one, range(count)))


def scheduled(stack: Stack, ids: list[str], url: str, wanted: float = ASKED, seconds: float = SECONDS) -> Scheduled:
    """Says of so many connections each second that they are due, in turns, and looks when they were refreshed."""
    bare = asyncio.run(_bare(stack, f"{url}/token"))
    late: list[float] = []
    due: dict[str, float] = {}
    asked = 0
    conninfo = stack.clusters["core"].conninfo("dba", "coordinator")
    with psycopg.connect(**conninfo, autocommit=True) as core:  # type: ignore[arg-type]
        core.execute(_NOT_DUE)
        began, looked = time.time(), time.time() - 5
        while (now := time.time()) < began + seconds:
            rows = core.execute(
                "select id, extract(epoch from refreshed_at) from connections where refreshed_at > to_timestamp(%s)",
                (looked - 1,),
            )
            for connection, refreshed in rows.fetchall():
                if connection in due and refreshed >= due[connection]:
                    late.append(float(refreshed) - due.pop(connection))
            looked = now
            room = int((now - began) * wanted) - asked
            idle = [each for each in ids if each not in due][:room]
            core.execute(_DUE, (idle,))
            due |= dict.fromkeys(idle, time.time())
            asked += len(idle)
            ids = ids[len(idle) :] + ids[: len(idle)]
            time.sleep(max(0.0, 0.2 - (time.time() - now)))
        took = time.time() - began
        # What was due and did not come is late too.
        waiting = [time.time() - each for each in due.values()]
        core.execute(_NOT_DUE)
    ordered = sorted(late + [each for each in waiting if each > 1])
    return Scheduled(asked / took, len(late) / took, ordered[int(len(ordered) * 0.99) - 1], bare)


async def _bare(stack: Stack, url: str) -> float:
    context = httpx2.create_ssl_context(verify=str(stack.public_ca.certificate_file), trust_env=False)
    count, ends = 0, time.monotonic() + 3
    async with httpx2.AsyncClient(verify=context, trust_env=False) as client:

        async def work() -> None:
            nonlocal count
            while time.monotonic() < ends:
                (await client.post(url, data={"grant_type": "refresh_token"})).raise_for_status()
                count += 1

        await asyncio.gather(*(work() for _ in range(16)))
    return count / 3


def many_callers(stack: Stack, customer: Customer, url: str) -> tuple[float, float]:
    """Lets a thousand callers ask for one token that has ended; gives seconds until all have it, and of one bare request."""
    body = {
        "authorization_endpoint": f"{url}/authorize",
        "token_endpoint": f"{url}/token/slow",
        "client_id": "bench-slow",
        "client_secret": "a-client-secret-of-the-bench-0123456789",
    }
    config = customer.post("/provider-configs", body).raise_for_status().json()["id"]
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    given = {
        "kind": "oauth2",
        "end_user_id": "everybody",
        "provider_config_id": config,
        "expire_time": ends,
        "access_token": "access-of-the-bench-everybody",
        "refresh_token": "refresh-of-the-bench-everybody",
    }
    connection = customer.post("/connections", given).raise_for_status().json()["id"]
    conninfo = stack.clusters["core"].conninfo("dba", "coordinator")
    with psycopg.connect(**conninfo, autocommit=True) as core:  # type: ignore[arg-type]
        core.execute("update connections set refresh_due_at = '2100-01-01' where id = %s", (connection,))
    time.sleep(3)
    return asyncio.run(_call(stack, customer, connection, f"{url}/token/slow"))


async def _call(stack: Stack, customer: Customer, connection: str, bare_url: str) -> tuple[float, float]:
    context = ssl.create_default_context(cafile=str(stack.public_ca.certificate_file))
    async with httpx2.AsyncClient(verify=context, trust_env=False) as client:
        (await client.get(bare_url.removesuffix("/slow"))).raise_for_status()  # it has its connection
        began = time.monotonic()
        (await client.post(bare_url, data={"grant_type": "refresh_token"})).raise_for_status()
        bare = time.monotonic() - began
    # By hand: a thousand connections of an HTTP client cost more than what is measured. Each is there before it is asked.
    host, port = customer.rest.removeprefix("https://").split(":")
    streams = []
    for _ in range(0, CALLERS, 50):
        opening = (asyncio.open_connection(host, int(port), ssl=context) for _ in range(50))
        streams += await asyncio.gather(*opening)
    path = f"/v1/connections/{connection}/token"
    bearer = customer.http.headers["authorization"]
    request = f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: {bearer}\r\n\r\n".encode()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, str]:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        return head[9:12], json.loads(body).get("access_token", "")

    began = time.monotonic()
    answers = await asyncio.gather(*(ask(*each) for each in streams))
    took = time.monotonic() - began
    for _, writer in streams:
        writer.close()
    if {status for status, _ in answers} != {b"200"} or len({token for _, token in answers}) != 1:
        raise SystemExit("Some of the callers were not served: nothing was measured.")
    return took, bare
