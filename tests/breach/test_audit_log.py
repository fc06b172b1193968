"""Whoever has PostgreSQL's superuser changes the log: the verifier names it, and no tree is signed that is not the old one, grown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

Superuser = Callable[[str, str], Any]
TABLES = ("leaves", "bodies", "batches", "tile_hashes", "tree_heads", "checkpoints")


class Auditor:
    """A customer's auditor: exports and verifies, and remembers what he saw."""

    def __init__(self, folder: Path, stack: Stack, customer: Customer) -> None:
        self.folder, self.stack, self.customer = folder, stack, customer

    def verify(self) -> tuple[int, str]:
        """Exports the log as it is now and verifies it; gives the exit code and what was said."""
        key, file, seen = self.folder / "key", str(self.folder / "export.jsonl"), str(self.folder / "seen.json")
        key.touch(0o600)
        key.write_text(str(self.customer.http.headers["authorization"]).removeprefix("Bearer "))
        rest, ca = self.stack.layout.rest_url, str(self.stack.public_ca.certificate_file)
        export = ("export", file, "--url", rest, "--key-file", str(key), "--ca", ca, "--seen", seen)
        said = self._run(*export)
        return (said.returncode, said.stderr) if said.returncode else self._verify(file, seen)

    def _verify(self, file: str, seen: str) -> tuple[int, str]:
        said = self._run("verify", file, "--seen", seen)
        return said.returncode, said.stdout + said.stderr

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "authpipe_cli", "audit", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
        )


@pytest.fixture
def auditor(
    tmp_path: Path, stack: Stack, new_customer: Callable[..., Customer], wait_for: Callable[..., Any]
) -> Auditor:
    """An auditor who has seen the log whole."""
    customer = new_customer()
    for number in range(4):
        customer.import_api_key(f"sk_live_for-the-auditor-{number}-0123456789")
    assert wait_for(lambda: len(customer.get("/audit/events", event="CONNECTION_CREATED").json()["events"]) == 4, 20)
    time.sleep(3)  # statements and checkpoints come every second here
    made = Auditor(tmp_path, stack, customer)
    code, said = made.verify()
    assert code == 0, said
    return made


# The lock under which a trail grows: who holds it lets nothing come meanwhile.
LOCK = 0x7472_6565


@contextmanager
def put_back(superuser: Superuser) -> Iterator[Any]:
    """Gives the superuser, and afterwards puts back what he did to the log. What is emitted meanwhile waits."""
    with superuser("core", "audit") as audit:
        audit.execute("select pg_advisory_lock(%s, trail) from generate_series(1, 3) as trail", (LOCK,))
        for table in TABLES:
            audit.execute(f"create table kept_{table} as table {table}")
        try:
            yield audit
        finally:
            # Held twice does no harm: what a test has let go is held again.
            audit.execute("select pg_advisory_lock(%s, trail) from generate_series(1, 3) as trail", (LOCK,))
            for table in TABLES:
                audit.execute(f"delete from {table}")
                audit.execute(f"insert into {table} select * from kept_{table}")
                audit.execute(f"drop table kept_{table}")
            audit.execute("select pg_advisory_unlock_all()")


def workspace_of(audit: Any, auditor: Auditor) -> str:
    (event, *_) = auditor.customer.get("/audit/events", event="CONNECTION_CREATED").json()["events"]
    (workspace,) = audit.execute(
        "select workspace_id from bodies where position(%s in record) > 0", (event["event_id"],)
    ).fetchone()
    return str(workspace)


ACTS = {
    "changes an event": (
        "update bodies set record = replace(encode(record, 'escape'), 'SUCCEEDED', 'REFUSED')::bytea"
        " where workspace_id = %(w)s and trail = 3",
        {5},
    ),
    "changes an event and its leaf": (
        "with b as (update bodies set record = replace(encode(record, 'escape'), 'SUCCEEDED', 'REFUSED')::bytea"
        " where workspace_id = %(w)s and trail = 3 returning trail, leaf_index, record, salt)"
        " update leaves l set entry = sha256(b.salt || b.record) from b"
        " where (l.trail, l.leaf_index) = (b.trail, b.leaf_index)",
        # Its emitter has not signed that; or the tree is another than the auditor has seen, where that is looked at first.
        {7, 11},
    ),
    "gives an event another leaf": (
        "with b as (update bodies set salt = sha256(salt)"
        " where workspace_id = %(w)s and trail = 3 returning trail, leaf_index, record, salt)"
        " update leaves l set entry = sha256(b.salt || b.record) from b"
        " where (l.trail, l.leaf_index) = (b.trail, b.leaf_index)",
        {6, 7},
    ),
    "deletes an event": (
        "with l as (delete from leaves where workspace_id = %(w)s and trail = 3 and position = 2 returning *)"
        " delete from bodies b using l where (b.trail, b.leaf_index) = (l.trail, l.leaf_index)",
        {1, 3, 6, 8},
    ),
    "deletes the body of an event": ("delete from bodies where workspace_id = %(w)s and trail = 3 and leaf_index ="
        " (select min(leaf_index) from bodies where workspace_id = %(w)s and trail = 3)", {9}),
    "exchanges two events": (
        "update leaves l set entry = o.entry from leaves o where l.workspace_id = %(w)s and o.workspace_id = %(w)s"
        " and l.trail = 3 and o.trail = 3 and ((l.position = 1 and o.position = 2) or (l.position = 2 and o.position = 1))",
        {5},
    ),
    "inserts an event": (
        "with l as (update leaves set position = position + 1000, workspace_id = %(w)s where trail = 3 and leaf_index ="
        " (select max(leaf_index) from leaves where trail = 3 and workspace_id <> %(w)s) returning *)"
        " update bodies b set workspace_id = %(w)s from l where (b.trail, b.leaf_index) = (l.trail, l.leaf_index)",
        {8},
    ),
    "exchanges two trails": (
        ";".join(
            f"update {table} set trail = {new} where trail = {old}"
            for table in ("leaves", "bodies", "tile_hashes")
            for old, new in ((1, 13), (3, 1), (13, 3))
        ),
        {1, 3, 5, 6, 7, 8},
    ),
    "writes a checkpoint of his own": (
        "update checkpoints c set note = replace(note, split_part(note, E'\\n', 3), encode(sha256('x'), 'base64'))"
        " where trail = 3",
        {4},
    ),
}  # fmt: skip


@pytest.mark.case(29)
@pytest.mark.promise("P31")
@pytest.mark.parametrize("act", ACTS)
def test_a_superuser_who(act: str, auditor: Auditor, superuser: Superuser) -> None:
    statement, codes = ACTS[act]
    with put_back(superuser) as audit:
        workspace = workspace_of(audit, auditor)
        for each in statement.split(";"):
            if each.strip():
                audit.execute(each, {"w": workspace}) if "%(w)s" in each else audit.execute(each)
        code, said = auditor.verify()
        assert code in codes, (code, said)
    code, said = auditor.verify()
    assert code == 0, said


@pytest.mark.case(29)
@pytest.mark.promise("P31")
def test_a_superuser_who_sets_the_log_back_is_seen_and_nothing_is_signed_on_top_of_it(
    auditor: Auditor, superuser: Superuser, stack: Stack, wait_for: Callable[..., Any]
) -> None:
    with put_back(superuser) as audit:
        # Yesterday's dump: the tail is cut, with the last of each emitter in it.
        (size,) = audit.execute(
            "select min(last) from (select max(first_leaf) as last from batches where trail = 3 and emitter <> 'audit'"
            " group by emitter) as of_each"
        ).fetchone()
        (old,) = audit.execute(
            "select coalesce(max(size), 0) from tree_heads where trail = 3 and size <= %s", (size,)
        ).fetchone()
        for table, column in (("leaves", "leaf_index"), ("bodies", "leaf_index"), ("batches", "first_leaf")):
            audit.execute(f"delete from {table} where trail = 3 and {column} >= %s", (old,))
        audit.execute("delete from tile_hashes where trail = 3 and (hash_index + 1) * (256 ^ level) > %s", (old,))
        for table in ("tree_heads", "checkpoints"):
            audit.execute(f"delete from {table} where trail = 3 and size > %s", (old,))
        # This trail may grow again, if it can; the others wait.
        audit.execute("select pg_advisory_unlock(%s, 3)", (LOCK,))
        newest = audit.execute("select coalesce(max(size), 0) from checkpoints where trail = 3").fetchone()[0]
        code, said = auditor.verify()
        assert code in {1, 7}, (code, said)
        # What is emitted now does not follow what is there: it waits in its outbox, and is not lost.
        auditor.customer.import_api_key("sk_live_after-the-dump-0123456789")
        time.sleep(3)
        again = audit.execute("select coalesce(max(size), 0) from checkpoints where trail = 3").fetchone()[0]
        assert again == newest, "no smaller tree is signed, and no other one"
        with superuser("core", "coordinator") as core:
            assert core.execute("select count(*) from audit_outbox").fetchone()[0] > 0
    with superuser("core", "coordinator") as core:
        assert wait_for(lambda: core.execute("select count(*) from audit_outbox").fetchone()[0] == 0, 30)
    assert wait_for(lambda: auditor.verify()[0] == 0, 20)


@pytest.mark.case(29)
def test_the_attack_sees_a_signer_that_signs_any_tree(superuser: Superuser, notices: Callable[..., None]) -> None:
    with superuser("core", "keyservice_audit_log") as keys:
        query = "select origin, tree_size, root_hash from signed_checkpoints where origin like '%/control'"
        origin, size, root = keys.execute(query).fetchone()
        try:
            notices(
                _asks_for_a_fork,
                (
                    "keyservice-audit-log",
                    "authpipe_keyservice.domain.checkpoints",
                    "verify_consistency(signed.size, signed.root, wanted.size, wanted.root, proof)",
                    "pass",
                ),
            )
        finally:
            # The mutant signed a tree of a thousand million leaves: nobody's log grows so soon.
            keys.execute(
                "update signed_checkpoints set tree_size = %s, root_hash = %s where origin = %s and tree_size >= 1e9",
                (size, root, origin),
            )


@pytest.mark.case(29)
@pytest.mark.promise("P31")
def test_an_audit_that_was_taken_over_gets_no_fork_signed(stack: Stack) -> None:
    _asks_for_a_fork(stack)


def _asks_for_a_fork(stack: Stack) -> None:
    """Asks, with audit's certificate, for a checkpoint of a larger tree that is another one."""
    program = f"""
import asyncio, json, pathlib
from authpipe_rpc import Files, Peer, PeerConfig, PeerRefused
from authpipe.keyservice.v1 import keyservice_pb2, keyservice_pb2_grpc
config = json.loads(pathlib.Path({str(stack.layout.configs / "audit.json")!r}).read_text())
async def main():
    peer = Peer(PeerConfig(**config["signer"]), Files(**config["files"]), keyservice_pb2_grpc.CheckpointSignerStub)
    origin, old, said = config["origin"] + "/control", 0, []
    for _ in range(2):
        request = keyservice_pb2.SignRequest(
            origin=origin, tree_size=10**9, root_hash=bytes(32), old_size=old, proof=[bytes(32)] if old else [])
        try:
            await peer.call(lambda stub: stub.Sign, request)
            said.append("signed")
        except PeerRefused as refused:
            said.append(refused.reason)
            old = int(refused.metadata.get("signed_size", 0))
    print(json.dumps(said))
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["CHECKPOINT_BASE_DIFFERS", "CHECKPOINT_FORKED"]
