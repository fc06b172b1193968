"""The HSM goes away, is another, locks, crashes, is slow: what a cache can answer goes on, the rest is a 503 that says why."""

from __future__ import annotations

import asyncio
import json
import os
import signal
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
from authpipe_testing.softhsm import find_module

KEYSERVICES = ("keyservice-user-credentials", "keyservice-user-credentials-2")
SECRET = "sk_live_an-hsm-that-misbehaves-0123456789"
HSM = "authpipe_keyservice.hsm"
WRAP = "return nonce + kek.encrypt(key, mechanism=Mechanism.AES_GCM, mechanism_param=params)"
CANARY = "key = self._find(_CANARY_LABEL)"


def healthy(keys: Stack) -> set[str]:
    """Gives which replicas of keyservice say that they serve."""
    return {p["name"] for p in keys.status()["processes"] if p["healthy"] and p["name"] in KEYSERVICES}


def store(tenant: Customer) -> Any:
    body = {"kind": "api_key", "end_user_id": "x", "provider": "p", "api_key": SECRET}
    return tenant.post("/connections", body)


def fresh(keys: Stack) -> Customer:
    """Gives a customer whose keys nobody has cached."""
    workspace, key = asyncio.run(keys.create_workspace("fresh"))
    return Customer(keys.layout.rest_url, str(keys.public_ca.certificate_file), key.decode(), workspace)


def logged(keys: Stack, text: str) -> bool:
    return any(text in (keys.layout.logs / f"{name}.log").read_text() for name in KEYSERVICES)


def require_outage(keys: Stack, cached: tuple[Customer, str], wait_for: Callable[..., Any], cause: str) -> None:
    """The replicas say why they do not serve; what is cached is served; what needs the HSM is a 503 with Retry-After."""
    assert wait_for(lambda: not healthy(keys))
    tenant, connection = cached
    assert tenant.token(connection).json()["api_key"] == SECRET, "what a cache can answer goes on"
    with fresh(keys) as customer:
        answer = store(customer)
        assert (answer.status_code, answer.json()["reason"]) == (503, "HSM_UNAVAILABLE"), answer.text
        assert int(answer.headers["retry-after"]) > 0
    assert wait_for(lambda: logged(keys, f'"cause":"{cause}"')), "the reason is in the log"


def require_recovery(keys: Stack, cached: tuple[Customer, str], pids: list[int], wait_for: Callable[..., Any]) -> None:
    """Everything works as before, and nobody had to start anything."""
    assert wait_for(lambda: healthy(keys) == set(KEYSERVICES))
    with fresh(keys) as customer:
        assert wait_for(lambda: store(customer).status_code == 201)
    assert cached[0].token(cached[1]).json()["api_key"] == SECRET
    assert [keys.pid(name) for name in KEYSERVICES] == pids, "recovered without a restart"


@pytest.fixture
def cached(tenant: Customer) -> tuple[Customer, str]:
    """A credential whose key both replicas hold in their caches."""
    connection = tenant.import_api_key(SECRET)["id"]
    assert all(tenant.token(connection).status_code == 200 for _ in range(8))
    return tenant, connection


@pytest.fixture
def pids(keys: Stack) -> list[int]:
    return [keys.pid(name) for name in KEYSERVICES]


@pytest.fixture
def tokens(keys: Stack) -> Path:
    """The folder with the tokens."""
    return keys.layout.home / "hsm" / "user-credentials" / "tokens"


@pytest.mark.case(13)
def test_a_token_that_is_gone(
    keys: Stack, cached: tuple[Customer, str], pids: list[int], tokens: Path, wait_for: Callable[..., Any]
) -> None:
    hidden = tokens.with_name("hidden")
    tokens.rename(hidden)
    try:
        # SoftHSM cannot even be initialised without its folder.
        require_outage(keys, cached, wait_for, "library-error")
    finally:
        hidden.rename(tokens)
    require_recovery(keys, cached, pids, wait_for)


@pytest.mark.case(13)
def test_a_token_that_was_initialised_anew_is_not_taken_for_ours_and_gets_no_keys(
    keys: Stack, cached: tuple[Customer, str], pids: list[int], tokens: Path, wait_for: Callable[..., Any]
) -> None:
    hidden = tokens.with_name("hidden")
    tokens.rename(hidden)
    tokens.mkdir(0o700)
    folder = tokens.parent
    try:
        subprocess.run(
            [sys.executable, "-m", "authpipe_testing.softhsm", str(find_module()), "user-credentials", folder / "pin"],
            env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
            check=True,
        )
        require_outage(keys, cached, wait_for, "key-not-found")
        assert len(list(tokens.rglob("*.object"))) <= 1, "no key was made in it"
    finally:
        for each in sorted(tokens.rglob("*"), reverse=True):
            each.rmdir() if each.is_dir() else each.unlink()
        tokens.rmdir()
        hidden.rename(tokens)
    require_recovery(keys, cached, pids, wait_for)


_SET_PIN = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
old, new = sys.stdin.read().split()
def check(result):
    if result: raise SystemExit(hex(result))
check(library.C_Initialize(None))
slots, count = (ctypes.c_ulong * 8)(), ctypes.c_ulong(8)
check(library.C_GetSlotList(ctypes.c_ubyte(1), slots, ctypes.byref(count)))
for slot in slots[: count.value]:
    info = ctypes.create_string_buffer(512)
    check(library.C_GetTokenInfo(ctypes.c_ulong(slot), info))
    if info.raw[:32].decode().rstrip() == "user-credentials":
        session = ctypes.c_ulong()
        check(library.C_OpenSession(ctypes.c_ulong(slot), ctypes.c_ulong(6), None, None, ctypes.byref(session)))
        check(library.C_Login(session, ctypes.c_ulong(1), old.encode(), ctypes.c_ulong(len(old))))
        check(library.C_SetPIN(session, old.encode(), ctypes.c_ulong(len(old)), new.encode(), ctypes.c_ulong(len(new))))
"""


def set_pin(keys: Stack, old: str, new: str) -> None:
    """Changes the token's PIN, as whoever runs the HSM."""
    folder = keys.layout.home / "hsm" / "user-credentials"
    subprocess.run(
        [sys.executable, "-c", _SET_PIN, str(find_module())],
        input=f"{old} {new}",
        env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
        text=True,
        check=True,
    )


@pytest.mark.case(13)
def test_a_pin_that_was_changed_is_tried_twice_at_most_and_recovers_with_the_new_one_in_the_file(
    keys: Stack, cached: tuple[Customer, str], pids: list[int], tokens: Path, wait_for: Callable[..., Any]
) -> None:
    pin_file = tokens.with_name("pin")
    pin = pin_file.read_text()
    hidden = tokens.with_name("hidden")
    # Changed while the token is away, so that every replica has to log in anew.
    set_pin(keys, pin, "changed-0123456789")
    tokens.rename(hidden)
    try:
        assert wait_for(lambda: not healthy(keys))
    finally:
        hidden.rename(tokens)
    require_outage(keys, cached, wait_for, "pin-refused")
    time.sleep(6)  # several looks of several replicas
    # A token locks itself after three wrong PINs in a row; it has not, so nobody tried that often.
    pin_file.chmod(0o600)
    pin_file.write_text("changed-0123456789")
    pin_file.chmod(0o400)
    try:
        require_recovery(keys, cached, pids, wait_for)
    finally:
        set_pin(keys, "changed-0123456789", pin)
        pin_file.chmod(0o600)
        pin_file.write_text(pin)
        pin_file.chmod(0o400)


@contextmanager
def mutant_of(keys: Stack, name: str, *patches: tuple[str, str, str]) -> Iterator[None]:
    """Runs one replica with a library that misbehaves, and mends it again."""
    file = keys.layout.home / "misbehaves.json"
    file.write_text(json.dumps({"module": "authpipe_keyservice", "patches": patches}))
    stop(keys, name)
    keys.start(name, "authpipe_testing.mutant", {"AUTHPIPE_MUTANT": str(file)})
    time.sleep(0.6)
    try:
        yield
    finally:
        if keys.pid(name):
            stop(keys, name)
        keys.start(name)
        time.sleep(0.6)


def stop(keys: Stack, name: str) -> None:
    keys.send(name, signal.SIGKILL)
    while keys.pid(name):
        time.sleep(0.05)


@pytest.mark.case(13)
def test_a_library_that_crashes_takes_one_replica_with_it_and_the_other_serves_on(
    keys: Stack, cached: tuple[Customer, str], wait_for: Callable[..., Any]
) -> None:
    crash = f"(__import__('ctypes').string_at(0) if __import__('os').path.exists('{keys.layout.home}/crash') else None)"
    flag = keys.layout.home / "crash"
    with mutant_of(keys, KEYSERVICES[1], (HSM, WRAP, f"{crash}; {WRAP}")):
        flag.touch()
        try:
            made = []

            def store_one() -> bool:
                with fresh(keys) as customer:
                    made.append(store(customer).status_code)
                return not keys.pid(KEYSERVICES[1])

            # A stream of calls stays with one replica for seconds.
            assert wait_for(store_one, 60), "it was really hit"
            assert set(made) == {201}, "every request was answered by the other"
            assert cached[0].token(cached[1]).status_code == 200
        finally:
            flag.unlink()
    assert not list(Path("/").glob("core*")), "and left no core file"


@pytest.mark.case(13)
@pytest.mark.parametrize(
    ("misbehaves", "cause"),
    [("raise SessionCount", "sessions-exhausted"), ("raise GeneralError", "library-error"), ("time.sleep(8)", "slow")],
)
def test_a_library_at_its_session_limit_or_that_fails_or_is_slow(
    misbehaves: str, cause: str, keys: Stack, cached: tuple[Customer, str], wait_for: Callable[..., Any]
) -> None:
    flag = keys.layout.home / "misbehaves"
    act = f"if __import__('os').path.exists('{flag}'): {misbehaves}"
    patches = ((HSM, f"            {CANARY}", f"            {act}\n            {CANARY}"),)
    name = KEYSERVICES[1]
    before = (keys.layout.logs / f"{name}.log").stat().st_size

    def said() -> bool:
        with (keys.layout.logs / f"{name}.log").open() as file:
            file.seek(before)
            return f'"cause":"{cause}"' in file.read()

    with mutant_of(keys, name, *patches):
        pid = keys.pid(name)
        # Streams of calls that were opened while it was away stay with the other for five seconds.
        ends = time.monotonic() + 6
        while time.monotonic() < ends:
            assert cached[0].token(cached[1]).status_code == 200, "both have it in their caches"
        flag.touch()
        try:
            assert wait_for(lambda: name not in healthy(keys))
            assert wait_for(said), cause
            assert all(cached[0].token(cached[1]).status_code == 200 for _ in range(6)), "caches and the other serve"
        finally:
            flag.unlink()
        assert wait_for(lambda: name in healthy(keys), 40)
        assert keys.pid(name) == pid, "recovered without a restart"


@pytest.mark.case(13)
def test_tampering_is_told_from_an_outage_raises_an_alarm_and_is_not_tried_again(
    keys: Stack, tenant: Customer, admin: Callable[..., Any], database: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    connection = tenant.import_api_key(SECRET)["id"]
    (wrapped,) = database("select wrapped from deks where workspace_id = %s", tenant.workspace)[0]
    flipped = bytes([wrapped[0] ^ 1]) + bytes(wrapped[1:])
    database("update deks set wrapped = %s where workspace_id = %s", flipped, tenant.workspace)
    assert admin("forget", "--domain", "user-credentials", tenant.workspace).returncode == 0
    answers = {(a.status_code, a.json()["reason"]) for a in (tenant.token(connection) for _ in range(6))}
    assert answers == {(500, "WRAPPED_KEY_TAMPERED")}
    assert healthy(keys) == set(KEYSERVICES), "the HSM is well"
    assert wait_for(lambda: tenant.get("/audit/events", event="INTEGRITY_VIOLATION").json()["events"]), "an alarm"
    database("update deks set wrapped = %s where workspace_id = %s", wrapped, tenant.workspace)
    assert wait_for(lambda: tenant.token(connection).status_code == 200)
