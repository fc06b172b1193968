"""audit, keyservice audit-log, relays and PostgreSQL killed at every step, while events come: each is there once, in one tree.

Everything is real: processes over mutual TLS, a token, a cluster that is killed as a machine that dies kills it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import authpipe_audit
import authpipe_keyservice
import psycopg
import pytest
from authpipe_database.migrations import upgrade
from authpipe_rpc import dns_name
from authpipe_testing import failpoints
from authpipe_testing.ca import CertificateAuthority, write_private
from authpipe_testing.database import config_of
from authpipe_testing.ports import free_ports
from authpipe_testing.postgres import Cluster
from authpipe_testing.softhsm import find_module, make_token
from authpipe_transparency import Frontier, Record, commitment, encode_event, leaf_hash, open_checkpoint, time_text
from authpipe_transparency.notes import LOG_KEY, Checkpoint, VerifierKey

# Each step is tried with any number: fewer will do while one works on it.
EVENTS = int(os.environ.get("AUTHPIPE_CRASH_EVENTS", "1000000"))
NAME, DOMAIN = "example.com/log", "authpipe.internal"
EMITTERS = {"vault": 1, "clientsecrets": 2}
LOG, CHECKPOINTING = "authpipe_audit.store.log", "authpipe_audit.domain.checkpointing"
SIGNER = "authpipe_keyservice.servicer.checkpoints"


def _reach(step: str, indent: int) -> str:
    return f"{' ' * indent}await __import__('authpipe_testing.failpoints', fromlist=['reach']).reach({step!r})\n"


_WRITTEN = "            if growth.leaves:\n                await _write(connection, growth)\n"
_ANSWER = "        self._known[trail] = growth.committed()\n        return answers\n"
_KEEP = "        await self._kept.put_checkpoint(trail, checkpoint.size, str(note))\n"
_SIGN = "        return pb.SignResponse(signature=await self._hsm.sign(self._label, wanted.text.encode()))\n"
PATCHES = {
    "audit": [
        (LOG, _WRITTEN, _WRITTEN + _reach("written, not committed", 12)),
        (LOG, _ANSWER, _reach("committed, not answered", 8) + _ANSWER),
        (CHECKPOINTING, _KEEP, _reach("signed, not kept", 8) + _KEEP),
    ],
    "keyservice": [(SIGNER, _SIGN, _reach("remembered, not signed", 8) + _SIGN)],
}
STEPS = [
    ("audit", "written, not committed"),
    ("audit", "committed, not answered"),
    ("audit", "signed, not kept"),
    ("keyservice", "remembered, not signed"),
]


class Small:
    """audit, its signer, its database, and two emitters with full outboxes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ca = self._ca = CertificateAuthority(folder, "ca")
        databases = ("audit", "keyservice_audit_log", *EMITTERS)
        port, *self._ports = free_ports(3)
        self.cluster = Cluster(
            "core", folder / "data", port, ca, folder, databases, folder / "postgres.log",
            (("audit", "audit_retention"), ("audit", "audit_watch")),
        )  # fmt: skip
        self.cluster.prepare()
        self.cluster.start()
        self.cluster.ensure_databases()
        members = Path(__file__).parents[4] / "libs" / "relay" / "tests" / "migrations"
        for database, migrations in (
            ("audit", Path(authpipe_audit.__file__).parent / "migrations"),
            ("keyservice_audit_log", Path(authpipe_keyservice.__file__).parent / "migrations"),
            *((emitter, members) for emitter in EMITTERS),
        ):
            upgrade(config_of(self.cluster, database, f"{database}_owner"), migrations)
        self.failpoint = folder / "failpoint.json"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._configure()

    def _files(self, identity: str) -> dict[str, str]:
        name = identity.replace("/", "-")
        uri = f"spiffe://{DOMAIN}/{identity}"
        leaf = self._ca.issue(self._folder, name, common_name=name, dns=(dns_name(identity),), uris=(uri,))
        ca = str(self._ca.certificate_file)
        return {"certificate": str(leaf.certificate), "key": str(leaf.key), "ca": ca, "trust_domain": DOMAIN}

    def _database(self, name: str, role: str) -> dict[str, Any]:
        return json.loads(config_of(self.cluster, name, role).model_dump_json())

    def _configure(self) -> None:
        signer_port, audit_port = self._ports
        softhsm, pin = make_token(self._folder / "hsm", "audit-log")
        self._environment = {"SOFTHSM2_CONF": str(softhsm)}
        origins = [f"{NAME}/{trail}" for trail in ("user-credentials", "client-secrets", "control")]
        configs: dict[str, dict[str, Any]] = {
            "keyservice": {
                "key_domain": "audit-log", "region": "local", "files": self._files("keyservice/audit-log"),
                "server": {"host": "127.0.0.1", "port": signer_port}, "pkcs11_module": str(find_module()),
                "token_label": "audit-log", "pin_file": str(pin), "origins": origins,
                "database": self._database("keyservice_audit_log", "keyservice_audit_log"),
            },
            "audit": {
                "region": "local", "origin": NAME, "files": self._files("audit"),
                "server": {"host": "127.0.0.1", "port": audit_port}, "checkpoint_seconds": 0.2, "statement_seconds": 2.0,
                "database": self._database("audit", "audit"),
                "retention_database": self._database("audit", "audit_retention"),
                "watch_database": self._database("audit", "audit_watch"),
                "signer": {"name": "keyservice/audit-log", "address": f"127.0.0.1:{signer_port}"},
            },
        }  # fmt: skip
        for emitter in EMITTERS:
            configs[emitter] = {
                "files": self._files(emitter), "database": self._database(emitter, emitter), "dies_after": 9,
                "audit": {"name": "audit", "address": f"127.0.0.1:{audit_port}"},
            }  # fmt: skip
        for name, config in configs.items():
            write_private(self._folder / f"{name}.json", json.dumps(config).encode())
        for name, patches in PATCHES.items():
            settings = {"module": f"authpipe_{name}", "patches": patches}
            write_private(self._folder / f"mutant-{name}.json", json.dumps(settings).encode())

    def fill(self, emitter: str, amount: int) -> list[bytes]:
        """Fills an outbox; gives the events, in their order."""
        events = [
            encode_event(
                {
                    "actor": "service:test", "id": f"{number:032x}", "name": "RECORD_KEY_RELEASED", "outcome": "SUCCEEDED",
                    "time": time_text(time.time_ns()), "request": f"r{number}", "workspace": f"ws_{number % 40}",
                }
            )
            for number in range(amount)
        ]  # fmt: skip
        with psycopg.connect(**self.cluster.conninfo("dba", emitter), autocommit=True) as dba:  # type: ignore[arg-type]
            for first in range(0, amount, 32):
                dba.execute("insert into audit_outbox (events) values (%b)", (events[first : first + 32],))
        return events

    def ensure(self) -> None:
        """Starts whatever does not run, as whoever runs it would."""
        for name in ("keyservice", "audit", *EMITTERS):
            running = self._running.get(name)
            if running is None or running.poll() is not None:
                self._running[name] = self._start(name)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        config = str(self._folder / f"{name}.json")
        environment = {**os.environ, **self._environment, failpoints.ARMED: str(self.failpoint)}
        if name in EMITTERS:
            command = [sys.executable, str(Path(__file__).with_name("relaying.py")), config]
        else:
            command = [sys.executable, "-m", "authpipe_testing.mutant", config]
            environment["AUTHPIPE_MUTANT"] = str(self._folder / f"mutant-{name}.json")
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self._folder)

    def kill(self, name: str) -> None:
        """Kills a process."""
        self._running[name].send_signal(signal.SIGKILL)
        self._running[name].wait(10)

    def close(self) -> None:
        """Ends everything."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(10)
        self.cluster.stop()

    def ask(self, database: str, query: str) -> list[tuple[Any, ...]]:
        """Asks a database as its superuser."""
        with psycopg.connect(**self.cluster.conninfo("dba", database), autocommit=True) as dba:  # type: ignore[arg-type]
            return dba.execute(query.encode()).fetchall()

    def waiting(self) -> int:
        """Gives how many rows wait in the outboxes."""
        return sum(int(self.ask(emitter, "select count(*) from audit_outbox")[0][0]) for emitter in EMITTERS)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    """The small system."""
    tmp_path.chmod(0o755)
    made = Small(tmp_path)
    try:
        yield made
    finally:
        made.close()


def let_die(small: Small) -> None:
    """Lets each of them die at each step, and PostgreSQL in the middle of everything, while events come."""
    for who, step in STEPS * 2:
        failpoints.arm(small.failpoint, step, "die", 1)
        ends = time.monotonic() + 30
        while not failpoints.reached(small.failpoint):
            assert time.monotonic() < ends, f"{who} did not come to: {step}"
            small.ensure()
            time.sleep(0.05)
        time.sleep(0.2)
        small.ensure()
    failpoints.disarm(small.failpoint)
    for _ in range(2):
        small.cluster.crash()
        time.sleep(0.3)
        small.cluster.start()
        small.ensure()
        time.sleep(1.0)
    small.kill("audit")
    small.ensure()


@pytest.mark.case(28)
@pytest.mark.promise("P31")
@pytest.mark.timeout(900)
def test_whatever_is_killed_at_whatever_step_no_event_is_lost_none_is_there_twice_and_the_tree_is_one(
    small: Small,
) -> None:
    sent = {emitter: small.fill(emitter, EVENTS // len(EMITTERS)) for emitter in EMITTERS}
    small.ensure()
    let_die(small)
    ends = time.monotonic() + 800
    while small.waiting():
        assert time.monotonic() < ends, "The outboxes did not empty."
        small.ensure()
        time.sleep(0.2)
    time.sleep(3)  # the last checkpoints
    key_of = public_key(small)
    for emitter, trail in EMITTERS.items():
        rows = small.ask(
            "audit",
            "select l.leaf_index, l.entry, b.record, b.salt from leaves l join bodies b using (trail, leaf_index)"
            f" where trail = {trail} order by 1",
        )
        assert [row[0] for row in rows] == list(range(len(rows)))
        records = [Record(bytes(row[2])) for row in rows]
        own = [record for record in records if record.emitter == emitter]
        # Each once, in its order, under its number.
        assert [record.sequence for record in own] == list(range(1, len(sent[emitter]) + 1))
        assert [record.event for record in own] == sent[emitter]
        # One tree: every checkpoint that was ever kept is a beginning of it.
        checkpoints = dict(small.ask("audit", f"select size, note from checkpoints where trail = {trail}"))
        origin = f"{NAME}/{'user-credentials' if trail == 1 else 'client-secrets'}"
        key = VerifierKey(origin, LOG_KEY, key_of)
        frontier = Frontier()
        for row in rows:
            assert commitment(bytes(row[3]), bytes(row[2])) == bytes(row[1])
            frontier.append(leaf_hash(bytes(row[1])))
            if note := checkpoints.pop(frontier.size, ""):
                checkpoint, _ = open_checkpoint(note, key)
                assert checkpoint == Checkpoint(origin, frontier.size, frontier.root())
        assert not checkpoints, "a checkpoint is of a tree that is larger than this one"
        (signed,) = small.ask(
            "keyservice_audit_log", f"select tree_size, root_hash from signed_checkpoints where origin = '{origin}'"
        )
        assert signed[0] == frontier.size
        assert bytes(signed[1]) == frontier.root()


def public_key(small: Small) -> bytes:
    """Reads the log's public key out of a note's signer: keyservice gives it to audit alone."""
    program = f"""
import asyncio, json, pathlib, sys
from authpipe_rpc import Files, Peer, PeerConfig
from authpipe.keyservice.v1 import keyservice_pb2, keyservice_pb2_grpc
config = json.loads(pathlib.Path({str(small._folder / "audit.json")!r}).read_text())
async def main():
    peer = Peer(PeerConfig(**config["signer"]), Files(**config["files"]), keyservice_pb2_grpc.CheckpointSignerStub)
    answer = await peer.call(lambda stub: stub.GetPublicKey, keyservice_pb2.GetPublicKeyRequest())
    sys.stdout.write(answer.public_key.hex())
asyncio.run(main())
"""  # noqa: SLF001  # its own test
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return bytes.fromhex(done.stdout)
