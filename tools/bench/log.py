"""The audit log, as fast as it can and at a steady pace: batches of five emitters over mutual TLS, until a signed checkpoint has
all of them; and verifying.

    python log.py HOME EVENTS PACE (HOME: of a running system, whose emitters are idle; PACE: events a second)
    python log.py export FILE      (a million events, to verify; prints the log's key; their emitter's CA lies beside it)

A process of its own, so that the load does not share the event loop of what is measured. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from authpipe_rpc import Files, Peer, PeerConfig  # first: it sets grpc's cipher list

from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe_audit.domain.attesting import StoredBatch, batch_line, certificate_line
from authpipe_devstack.layout import PROCESSES
from authpipe_devstack.stack import Stack
from authpipe_grants import Leaf, SignedBatch
from authpipe_testing.ca import CertificateAuthority
from authpipe_transparency import (
    LOG_KEY,
    Checkpoint,
    Frontier,
    Note,
    SignatureLine,
    VerifierKey,
    commitment,
    encode_event,
    leaf_hash,
    record_of,
    time_text,
)
from authpipe_transparency.exports import End, Header, LeafLine, write_line
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
import psycopg

_BATCH = 512
_EMITTERS = {
    "keyservice-user-credentials": 1,
    "vault": 1,
    "keyservice-client-secrets": 2,
    "authority": 3,
    "coordinator": 3,
}


def event(workspace: str) -> bytes:
    """Makes an event such as the use of a credential leaves."""
    return encode_event(
        {
            "actor": "api_key:key_0123456789abcdef01234567",
            "class": "access",
            "grant": os.urandom(16).hex(),
            "id": os.urandom(16).hex(),
            "name": "RECORD_KEY_RELEASED",
            "outcome": "SUCCEEDED",
            "purpose": "serve",
            "request": f"req_{os.urandom(12).hex()}",
            "target": f"con_{os.urandom(12).hex()}",
            "time": time_text(time.time_ns()),
            "version": 3,
            "workspace": workspace,
        }
    )


def events(amount: int) -> list[bytes]:
    """Makes events of many workspaces."""
    return [event(f"ws_{number % 500:024x}") for number in range(amount)]


def write_export(file: Path, amount: int, ca_folder: Path) -> str:
    """Writes an export of so many events of one workspace, in its emitter's batches; gives the log's key."""
    signing = Ed25519PrivateKey.generate()
    key = VerifierKey("example.com/log/user-credentials", LOG_KEY, signing.public_key().public_bytes_raw())
    names = {"common_name": "vault", "uris": ("spiffe://example.com/vault",), "dns": ("vault.example.com",)}
    files = CertificateAuthority(ca_folder, "ca").issue(ca_folder, "vault", **names)  # type: ignore[arg-type]
    leaf = Leaf(files.certificate, files.key, "example.com", time.time)
    frontier = Frontier()
    body = file.with_suffix(".body")
    with body.open("wb") as lines:
        for first in range(0, amount, _BATCH):
            made = [event("ws_1") for _ in range(min(_BATCH, amount - first))]
            signed = leaf.sign_batch(first + 1, made)
            batch = StoredBatch(
                first, "vault", first + 1, b"".join(map(leaf_hash, made)), signed.signature, signed.chain
            )
            if not first:
                lines.write(write_line(certificate_line(batch)))
            lines.write(write_line(batch_line(batch, range(first, first + len(made)))))
            for index, each in enumerate(made, first):
                salt, record = os.urandom(32), record_of("vault", index + 1, each)
                entry = commitment(salt, record)
                frontier.append(leaf_hash(entry))
                lines.write(write_line(LeafLine(index, index + 1, entry, record, salt)))
    checkpoint = Checkpoint(key.name, amount, frontier.root())
    line = SignatureLine(key.name, key.key_id, signing.sign(checkpoint.text.encode()))
    header = Header(key.name, "ws_1", "", "", str(key), str(Note(checkpoint.text, (line,))))
    with file.open("wb") as whole, body.open("rb") as lines:
        whole.write(write_line(header))
        shutil.copyfileobj(lines, whole)
        whole.write(write_line(End(amount)))
    body.unlink()
    return str(key)


class Emitter:
    """One emitter, with its batches made and signed before the clock runs."""

    def __init__(self, home: Path, name: str) -> None:
        config = json.loads((home / "config" / f"{name}.json").read_text())
        self.identity = next(process.identity for process in PROCESSES if process.name == name)
        self._files = Files(**config["files"])
        self._leaf = Leaf(self._files.certificate, self._files.key, self._files.trust_domain, time.time)
        self.peer: Peer[Any] = Peer(PeerConfig(**config["audit"]), self._files, audit_pb2_grpc.AuditStub, 30)
        self.batches: list[SignedBatch] = []

    async def prepare(self, made: list[bytes]) -> None:
        """Makes batches that follow what is in the log."""
        known = await self.peer.call(lambda stub: stub.Append, audit_pb2.AppendRequest())
        for start in range(0, len(made), _BATCH):
            first = known.logged_sequence + 1 + start
            self.batches.append(self._leaf.sign_batch(first, made[start : start + _BATCH]))

    async def run(self, began: float, pause: float, logged: dict[tuple[str, int], float]) -> None:
        """Delivers them, one after another, as a relay does; none before its time, which comes with each pause.

        Args:
            began: When the first is due.
            pause: Between two of them, seconds.
            logged: Where it notes when each batch was logged, by its emitter and first sequence number.
        """
        for number, batch in enumerate(self.batches):
            await asyncio.sleep(max(0.0, began + number * pause - time.monotonic()))
            request = audit_pb2.AppendRequest(
                events=batch.events, first_sequence=batch.first_sequence, signature=batch.signature, chain=batch.chain
            )
            response = await self.peer.call(lambda stub: stub.Append, request)
            if response.logged_sequence != batch.first_sequence + len(batch.events) - 1:
                raise SystemExit("A batch was not logged: nothing was measured.")
            logged[self.identity, batch.first_sequence] = time.monotonic()


async def watch(home: Path, sizes: dict[int, list[tuple[float, int]]], stop: asyncio.Event) -> None:
    """Notes, for each trail, when which size was signed."""
    config = json.loads((home / "config" / "edge.json").read_text())
    peer: Peer[Any] = Peer(PeerConfig(**config["audit"]), Files(**config["files"]), audit_pb2_grpc.AuditStub, 30)
    while not stop.is_set():
        for trail, seen in sizes.items():
            answer = await peer.call(lambda stub: stub.GetCheckpoint, audit_pb2.GetCheckpointRequest(trail=trail))  # type: ignore[arg-type]
            size = Checkpoint.parse(Note.parse(answer.checkpoint).text).size
            if not seen or seen[-1][1] != size:
                seen.append((time.monotonic(), size))
        await asyncio.sleep(0.02)
    await peer.close()


async def deliver(home: Path, amount: int, pace: float | None) -> tuple[float, float, int]:
    """Delivers events, as fast as the log takes them or so many a second.

    Returns:
        How many a second there were; how long after an event was logged a checkpoint had it, at most; and how many there
        were.
    """
    emitters = [Emitter(home, name) for name in _EMITTERS]
    share = amount // len(emitters) // _BATCH * _BATCH
    for emitter in emitters:
        await emitter.prepare(events(share))
    sizes: dict[int, list[tuple[float, int]]] = {trail: [] for trail in set(_EMITTERS.values())}
    stop = asyncio.Event()
    watching = asyncio.create_task(watch(home, sizes, stop), name="checkpoints")
    await asyncio.sleep(0.5)
    before = {trail: seen[-1][1] for trail, seen in sizes.items()}
    due = {trail: before[trail] + share * list(_EMITTERS.values()).count(trail) for trail in sizes}
    pause = len(emitters) * _BATCH / pace if pace is not None else 0.0
    logged: dict[tuple[str, int], float] = {}
    began = time.monotonic()
    await asyncio.gather(
        *(emitter.run(began + number * pause / len(emitters), pause, logged) for number, emitter in enumerate(emitters))
    )
    ended = time.monotonic()
    async with asyncio.timeout(30):
        while any(sizes[trail][-1][1] < due[trail] for trail in sizes):  # noqa: ASYNC110  # it is elsewhere that it happens
            await asyncio.sleep(0.02)
    stop.set()
    await watching
    for emitter in emitters:
        await emitter.peer.close()
    total = share * len(emitters)
    places = _places(home)
    behind = [_when(sizes[places[batch][0]], places[batch][1]) - at for batch, at in logged.items()]
    return total / (ended - began), max(behind), total


def _places(home: Path) -> dict[tuple[str, int], tuple[int, int]]:
    """Gives, by emitter and first sequence number, in which trail a batch stands, and which size of its tree has it whole."""
    core = Stack(home, lambda _: None).clusters["core"].conninfo("dba", "audit")
    with psycopg.connect(**core) as audit:  # type: ignore[arg-type]  # its own words
        rows = audit.execute("select emitter, first_sequence, trail, first_leaf + events from batches").fetchall()
    return {(emitter, first): (trail, size) for emitter, first, trail, size in rows}


def _when(signed: list[tuple[float, int]], size: int) -> float:
    """Gives when a tree of a size, or a larger one, was signed."""
    return next(when for when, of in signed if of >= size)


async def main(home: Path, amount: int, pace: float) -> dict[str, float]:
    """Measures."""
    rate, behind, total = await deliver(home, amount, None)
    steady, behind_steady, more = await deliver(home, amount, pace)
    return {
        "rate": rate,
        "behind": behind,
        "steady": steady,
        "behind_steady": behind_steady,
        "events": total + more,
    }


if __name__ == "__main__":
    if sys.argv[1] == "export":
        sys.stdout.write(write_export(Path(sys.argv[2]), 1_000_000, Path(sys.argv[2]).parent / "emitters"))
    else:
        sys.stdout.write(json.dumps(asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))))
