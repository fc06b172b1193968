"""What a process holds: vault no token and no key, nobody a core file, the token no way to give a KEK away (case 11, P04)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_envelope import derive_record_key
from authpipe_sensitive import Secret
from authpipe_testing.customer import Customer
from authpipe_testing.softhsm import find_module


def read_memory(pid: int) -> bytes:
    """Reads all writable memory of a process.

    Raises:
        PermissionError: The kernel does not let us, as it should for whoever is not root.
    """
    found = []
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            start, end = int(match[1], 16), int(match[2], 16)
            try:
                memory.seek(start)
                found.append(memory.read(end - start))
            except (OSError, ValueError, OverflowError):
                continue
    return b"".join(found)


@pytest.mark.promise("P10")
@pytest.mark.case(11)
def test_vaults_memory_holds_no_token_and_no_key_while_it_serves_a_thousand_and_refreshes_a_hundred(
    stack: Stack,
    customer: Customer,
    config: str,
    playground: Any,
    superuser: Callable[[str, str], Any],
    connection_keys: Callable[[str], list[Secret]],
) -> None:
    canary = "sk_live_MEMORYCANARY-8f1d2c3b4a5e6f70"
    connection = customer.import_api_key(canary)["id"]
    # Tokens of such a short life that each serve is a refresh.
    playground.set_life(4)
    before = playground.counts().get("refresh_token", 0)
    oauth = customer.connect(config, "memory")
    tokens = {customer.token(oauth).json()["access_token"] for _ in range(100)}
    playground.set_life(3600)
    token = customer.token(oauth).json()["access_token"]
    assert playground.counts()["refresh_token"] - before >= 100
    assert len(tokens) == 100
    for _ in range(500):
        assert customer.token(connection).json()["api_key"] == canary
        assert customer.token(oauth).json()["access_token"] == token
    keys = [bytes(key.expose()) for key in connection_keys("user-credentials")]
    with superuser("vault", "vault") as vault:
        rows = vault.execute(
            "select record_class, record from records where connection_id = %s", (connection,)
        ).fetchall()
    salts = [(number, bytes(record)[8:40]) for number, record in rows]
    record_keys = [
        bytes(derive_record_key(Secret(key), 1, salt, number).material.expose()[:32])
        for key in keys
        for number, salt in salts
    ]
    try:
        memory = read_memory(stack.pid("vault"))
    except PermissionError:
        assert os.geteuid() != 0, "root reads memory; only the refusal for others proves something here"
        return
    assert connection.encode() in memory, "the stage is right: it did pass through this process"
    assert salts[0][1] in memory, "and so did its ciphertext"
    for value in (canary.encode(), token.encode(), *(each.encode() for each in tokens), *keys, *record_keys):
        assert value not in memory


@pytest.mark.case(11)
def test_the_same_eyes_see_a_token_in_a_process_that_keeps_it(
    customer: Customer, mutant: Callable[..., Any], stack: Stack
) -> None:
    canary = "sk_live_MEMORYCANARY-0a1b2c3d4e5f6071"
    keeps = "kept.append(bytes(opened.plaintext.expose())); return Served("
    module = "authpipe_gateway_edge.domain.serving"
    with mutant(
        ("edge", module, "return Served(", keeps), ("edge", module, "\nclass Serving:", "\nkept = []\nclass Serving:")
    ):
        connection = customer.import_api_key(canary)["id"]
        assert customer.token(connection).json()["api_key"] == canary
        try:
            assert canary.encode() in read_memory(stack.pid("edge"))
        except PermissionError:
            assert os.geteuid() != 0


@pytest.mark.case(11)
def test_nobody_dumps_core_or_lets_others_of_the_same_user_read_its_memory(stack: Stack) -> None:
    for process in stack.status()["processes"]:
        limits = Path(f"/proc/{process['pid']}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"], process["name"]
        # A process that is not dumpable belongs to root below /proc (prctl(2), PR_SET_DUMPABLE).
        assert Path(f"/proc/{process['pid']}/mem").stat().st_uid == 0, process["name"]


@pytest.mark.case(11)
def test_a_service_that_is_aborted_leaves_no_core_file(stack: Stack, wait_for: Callable[..., Any]) -> None:
    stack.send("vault", signal.SIGABRT)
    assert wait_for(lambda: not stack.pid("vault"))
    time.sleep(0.2)
    assert not [path for folder in (Path("/"), stack.layout.home) for path in folder.glob("core*") if path.is_file()]
    stack.start("vault")


ATTEMPT = """
import sys, pkcs11
from pkcs11 import Attribute, ObjectClass
token = pkcs11.lib(sys.argv[1]).get_token(token_label="user-credentials")
with token.open(user_pin=open(sys.argv[2]).read()) as session:
    keys = sorted(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}), key=lambda key: key.label)
    labels = sorted(key.label for key in keys)
    assert labels[0] == "canary" and all(label.startswith("kek-user-credentials-") for label in labels[1:]), labels
    assert len(labels) > 1
    for key in keys:
        assert not key[Attribute.EXTRACTABLE] and key[Attribute.SENSITIVE] and key[Attribute.ALWAYS_SENSITIVE]
        try:
            key[Attribute.VALUE]
        except pkcs11.exceptions.AttributeSensitive:
            print("refused", key.label)
        else:
            print("read", key.label)
"""


@pytest.mark.promise("P04")
def test_the_token_refuses_to_give_a_kek_even_to_whoever_has_the_pin(stack: Stack) -> None:
    folder = stack.layout.home / "hsm" / "user-credentials"
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPT, str(find_module()), str(folder / "pin")],
        env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout.split()
    assert set(said[0::2]) == {"refused"}, done.stderr
    assert {"canary", "kek-user-credentials-1"} <= set(said[1::2])


@pytest.mark.promise("P03")
def test_each_workspace_has_its_own_deks_one_for_each_key_domain(
    new_customer: Callable[..., Customer], stack: Stack, superuser: Callable[[str, str], Any]
) -> None:
    for _ in range(2):
        made = new_customer()
        made.import_api_key("sk_live_a-key-for-a-dek-0123456789")
        made.configure(stack.layout.playground_issuer)
    for database in ("keyservice_user_credentials", "keyservice_client_secrets"):
        with superuser("core", database) as keys:
            rows = keys.execute("select workspace_id, wrapped, length(wrapped) from deks").fetchall()
        assert len({row[0] for row in rows}) == len(rows) == len({bytes(row[1]) for row in rows})
        assert {row[2] for row in rows} == {12 + 32 + 16}
