"""A relay in a process of its own, so that it can be killed: `python relaying.py CONFIG`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from authpipe_rpc import Files, PeerConfig  # first: it sets grpc's cipher list
from authpipe_database import Database, DatabaseConfig, Outbox
from authpipe_grants import Leaf, SignedBatch
from authpipe_relay import AuditSink, Relay


class DyingSink:
    """audit; and after so many deliveries this process dies, between delivery and deletion."""

    def __init__(self, sink: AuditSink, dies_after: int) -> None:
        self._sink = sink
        self._left = dies_after

    async def append(self, batch: SignedBatch) -> int:
        """Delivers a batch."""
        logged = await self._sink.append(batch)
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return logged


async def main(settings: dict[str, object]) -> None:
    """Relays until it dies."""
    files = Files(**settings["files"])  # type: ignore[arg-type]
    database = Database(DatabaseConfig(**settings["database"]))  # type: ignore[arg-type]
    await database.open()
    leaf = Leaf(files.certificate, files.key, files.trust_domain, time.time)
    sink = DyingSink(AuditSink(PeerConfig(**settings["audit"]), files), int(str(settings["dies_after"])))  # type: ignore[arg-type]
    await Relay(database, Outbox(), sink, leaf.sign_batch, 1_000_000, 0.01, 0.05).run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
