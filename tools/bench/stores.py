"""A store compared with the log: so many records in vault, each with its event in the log, and the command that compares them.

    python stores.py HOME RECORDS      (HOME: of a running system whose vault is idle; from stdin, as JSON, how its superuser gets in)

What is written behind vault's back is told to the log in its name, as it would have been. A process of its own, like the load on the log.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from log import Emitter  # first: it sets grpc's cipher list
import psycopg
from authpipe_transparency import encode_event, time_text

_RECORD_BYTES = 700
_ACCESS = 1


def rows(amount: int) -> Iterator[tuple[str, str, bytes]]:
    """Makes records of many workspaces: workspace, connection, bytes."""
    for number in range(amount):
        yield f"ws_{number % 500:024x}", f"con_{number:024x}", os.urandom(_RECORD_BYTES)


def written(workspace: str, connection: str, record: bytes, nanoseconds: int) -> bytes:
    """Makes the event of a record."""
    return encode_event(
        {
            "actor": "service:bench",
            "class": "access",
            "digest": hashlib.sha256(record).hexdigest(),
            "id": os.urandom(16).hex(),
            "name": "RECORDS_WRITTEN",
            "outcome": "SUCCEEDED",
            "purpose": "store",
            "request": "req_bench",
            "target": connection,
            "time": time_text(nanoseconds),
            "version": 1,
            "workspace": workspace,
        }
    )


def fill(conninfo: dict[str, Any], amount: int) -> list[bytes]:
    """Writes records into vault's database; gives their events."""
    events = []
    columns = "workspace_id, connection_id, record_class, version, record, provider, hosts_digest, masked, fence"
    with psycopg.connect(**conninfo) as vault, vault.cursor().copy(f"copy records ({columns}) from stdin") as copy:
        for workspace, connection, record in rows(amount):
            copy.write_row((workspace, connection, _ACCESS, 1, record, "bench", bytes(32), "benc…", 0))
            events.append(written(workspace, connection, record, 1_790_000_000 * 10**9))
    return events


async def tell(home: Path, events: list[bytes]) -> None:
    """Tells the log of them."""
    emitter = Emitter(home, "vault")
    await emitter.prepare(events)
    await emitter.run(time.monotonic(), 0.0, {})
    await emitter.peer.close()


if __name__ == "__main__":
    asyncio.run(tell(Path(sys.argv[1]), fill(json.load(sys.stdin), int(sys.argv[2]))))
