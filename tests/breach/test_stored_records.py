"""Whoever has a store's database: reads, writes, swaps, rolls back. Nothing opens in another place, and it is seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

Superuser = Callable[[str, str], psycopg.Connection[Any]]
API_KEY = "sk_live_an-api-key-in-a-stored-record"


@pytest.fixture
def vault(superuser: Superuser) -> Iterator[psycopg.Connection[Any]]:
    """vault's database, as PostgreSQL's superuser."""
    with superuser("vault", "vault") as connection:
        yield connection


@pytest.fixture
def keys(superuser: Superuser) -> Iterator[psycopg.Connection[Any]]:
    """keyservice's database, as PostgreSQL's superuser."""
    with superuser("core", "keyservice_user_credentials") as connection:
        yield connection


def set_record(vault: psycopg.Connection[Any], connection: str, record: bytes) -> None:
    vault.execute("update records set record = %s where connection_id = %s", (record, connection))


def get_record(vault: psycopg.Connection[Any], connection: str) -> bytes:
    row = vault.execute("select record from records where connection_id = %s", (connection,)).fetchone()
    assert row is not None
    return bytes(row[0])


def refused(customer: Customer, connection: str) -> str:
    answer = customer.token(connection)
    assert answer.status_code == 500
    assert API_KEY not in answer.text
    return str(answer.json()["reason"])


@pytest.mark.promise("P01")
@pytest.mark.promise("P05")
@pytest.mark.case(1)
def test_ciphertext_of_two_connections_or_workspaces_exchanged_does_not_open(
    customer: Customer, stranger: Customer, vault: psycopg.Connection[Any], wait_for: Callable[..., Any]
) -> None:
    mine = customer.import_api_key(API_KEY)["id"]
    other = customer.import_api_key(API_KEY + "-other")["id"]
    theirs = stranger.import_api_key(API_KEY + "-theirs")["id"]
    good = get_record(vault, mine)
    for source in (other, theirs):
        set_record(vault, mine, get_record(vault, source))
        assert refused(customer, mine) == "RECORD_INTEGRITY_VIOLATION"
    assert wait_for(lambda: customer.events(target=mine, event="INTEGRITY_VIOLATION"))
    set_record(vault, mine, good)
    assert customer.token(mine).json()["api_key"] == API_KEY


@pytest.mark.promise("P01")
@pytest.mark.case(3)
@pytest.mark.case(4)
@pytest.mark.parametrize("position", [0, 2, 3, 7, 8, 39, 40, 71, 72, -16, -1])
def test_a_flipped_byte_in_each_part_of_a_stored_record_is_refused(
    position: int, customer: Customer, vault: psycopg.Connection[Any], wait_for: Callable[..., Any]
) -> None:
    connection = customer.import_api_key(API_KEY)["id"]
    changed = bytearray(get_record(vault, connection))
    changed[position] ^= 1
    set_record(vault, connection, bytes(changed))
    assert refused(customer, connection) == "RECORD_INTEGRITY_VIOLATION"
    assert wait_for(lambda: customer.events(target=connection, event="INTEGRITY_VIOLATION"))


@pytest.mark.promise("P01")
@pytest.mark.case(3)
@pytest.mark.parametrize("length", [0, 1, 71, 72, 100, 135])
def test_a_truncated_stored_record_is_refused(length: int, customer: Customer, vault: psycopg.Connection[Any]) -> None:
    connection = customer.import_api_key(API_KEY)["id"]
    set_record(vault, connection, get_record(vault, connection)[:length])
    assert refused(customer, connection) == "RECORD_INTEGRITY_VIOLATION"


@pytest.mark.case(1)
@pytest.mark.parametrize(
    ("column", "value"), [("version", 2), ("record_class", 5), ("provider", "other"), ("hosts_digest", b"\x01" * 32)]
)
def test_a_record_passed_off_as_another_version_class_or_for_other_hosts_does_not_open(
    column: str, value: object, customer: Customer, vault: psycopg.Connection[Any], wait_for: Callable[..., Any]
) -> None:
    connection = customer.import_api_key(API_KEY)["id"]
    vault.execute(f"update records set {column} = %s where connection_id = %s", (value, connection))  # type: ignore[arg-type]
    assert refused(customer, connection) == "RECORD_INTEGRITY_VIOLATION"
    # keyservice saw a header that fits; edge, which has no database, had it put on record.
    assert wait_for(lambda: customer.events(target=connection, event="INTEGRITY_VIOLATION"))


@pytest.mark.case(2)
def test_yesterdays_row_put_back_after_a_refresh_is_refused_and_todays_token_stands(
    customer: Customer,
    config: str,
    playground: Any,
    vault: psycopg.Connection[Any],
    wait_for: Callable[..., Any],
) -> None:
    playground.set_life(6)
    connection = customer.connect(config, "rolled-back")
    playground.set_life(3600)
    rows = vault.execute(
        "select record_class, version, record from records where connection_id = %s", (connection,)
    ).fetchall()
    time.sleep(2)
    today = customer.token(connection).json()["access_token"]
    now = vault.execute(
        "select record_class, version, record from records where connection_id = %s", (connection,)
    ).fetchall()

    def put(which: list[Any]) -> None:
        for record_class, version, record in which:
            vault.execute(
                "update records set version = %s, record = %s where connection_id = %s and record_class = %s",
                (version, record, connection, record_class),
            )

    put(rows)
    answer = customer.token(connection)
    assert (answer.status_code, answer.json()["reason"]) == (500, "RECORD_ROLLED_BACK")
    assert wait_for(lambda: [e for e in customer.events(target=connection) if e["reason"] == "RECORD_ROLLED_BACK"])
    put(now)
    assert customer.token(connection).json()["access_token"] == today


@pytest.mark.case(2)
def test_a_reader_who_met_the_version_before_a_refresh_asks_again_and_raises_no_alarm(
    customer: Customer, config: str, mutant: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    connection = customer.connect(config, "on-its-way")
    going, answers = True, []
    asking = "        sealed = await self._keys.release(asking, wanted)\n"
    # vault takes its time between its own table and keyservice: every reader may be overtaken.
    slow = f"        await __import__('asyncio').sleep(0.3)\n{asking}"

    def read() -> None:
        while going:
            answers.append(customer.token(connection))

    with mutant(("vault", "authpipe_recordstore.domain.records", asking, slow)):
        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        try:
            refreshed = wait_for(lambda: customer.post(f"/connections/{connection}/refresh").status_code == 200, 20)
            assert refreshed
            time.sleep(1)
        finally:
            going = False
            for reader in readers:
                reader.join()
    assert {each.status_code for each in answers} == {200}, [each.text for each in answers if each.status_code != 200]
    assert len({each.json()["access_token"] for each in answers}) == 2
    assert customer.events(target=connection, event="INTEGRITY_VIOLATION") == []


@pytest.mark.promise("P03")
@pytest.mark.promise("P05")
@pytest.mark.case(6)
def test_wrapped_keys_copied_from_another_workspace_or_connection_do_not_unwrap(
    new_customer: Callable[..., Customer], keys: psycopg.Connection[Any], stack: Stack
) -> None:
    victim, attacker = new_customer(), new_customer()
    mine, theirs = victim.import_api_key(API_KEY)["id"], attacker.import_api_key(API_KEY)["id"]
    rows = keys.execute(
        "select connection_id, workspace_id, wrapped from connection_keys where connection_id = any(%s)",
        ([mine, theirs],),
    ).fetchall()
    found = {row[0]: row for row in rows}
    deks = dict(
        keys.execute(
            "select workspace_id, wrapped from deks where workspace_id = any(%s)", ([row[1] for row in rows],)
        ).fetchall()
    )
    assert len(set(deks.values())) == 2
    # The attacker's connection key in the victim's row.
    keys.execute("update connection_keys set wrapped = %s where connection_id = %s", (found[theirs][2], mine))
    assert refused(victim, mine) == "WRAPPED_KEY_TAMPERED"
    keys.execute("update connection_keys set wrapped = %s where connection_id = %s", (found[mine][2], mine))
    assert victim.token(mine).status_code == 200
    # The attacker's DEK in the victim's row: a fresh connection has no cached key.
    workspace, other = found[mine][1], found[theirs][1]
    keys.execute("update deks set wrapped = %s where workspace_id = %s", (deks[other], workspace))
    answer = victim.post("/connections", {"kind": "api_key", "end_user_id": "x", "provider": "p", "api_key": API_KEY})
    assert answer.json()["reason"] == "WRAPPED_KEY_TAMPERED"
    keys.execute("update deks set wrapped = %s where workspace_id = %s", (deks[workspace], workspace))
    assert victim.token(mine).json()["api_key"] == API_KEY


@pytest.mark.case(14)
def test_a_connection_moved_to_another_workspace_by_a_superuser_is_not_served(
    customer: Customer, stranger: Customer, vault: psycopg.Connection[Any], superuser: Superuser
) -> None:
    connection = customer.import_api_key(API_KEY)["id"]
    thief = stranger.import_api_key("sk_live_the-thiefs-own-key-0123456789")["id"]
    row = vault.execute("select workspace_id from records where connection_id = %s", (thief,)).fetchone()
    assert row is not None
    vault.execute("update records set workspace_id = %s where connection_id = %s", (row[0], connection))
    with superuser("core", "coordinator") as coordinator:
        coordinator.execute("update connections set workspace_id = %s where id = %s", (row[0], connection))
    answer = stranger.token(connection)
    assert answer.status_code in {404, 500}
    assert API_KEY not in answer.text
    # With keyservice's row moved too, the wrapped key does not unwrap in its new place.
    with superuser("core", "keyservice_user_credentials") as keys:
        keys.execute("update connection_keys set workspace_id = %s where connection_id = %s", (row[0], connection))
        keys.execute("update floors set workspace_id = %s where connection_id = %s", (row[0], connection))
    answer = stranger.token(connection)
    assert (answer.status_code, answer.json()["reason"]) == (500, "WRAPPED_KEY_TAMPERED")


KEYSERVICE = "keyservice-user-credentials"
_CIPHERS = "__import__('cryptography.hazmat.primitives.ciphers', fromlist=['Cipher', 'algorithms', 'modes'])"
MUTANTS: dict[str, tuple[Callable[..., None], list[tuple[str, str, str, str]], dict[str, Any]]] = {
    "one key for all connections, and the context binds none": (
        test_ciphertext_of_two_connections_or_workspaces_exchanged_does_not_open,
        [
            (
                KEYSERVICE,
                "authpipe_keyservice.domain.releasing",
                "derive_record_key(connection_key.key,",
                "derive_record_key(__import__('authpipe_sensitive').Secret(bytes(32)),",
            ),
            ("edge", "authpipe_envelope.context", "_text(self.workspace)", "b''"),
            ("edge", "authpipe_envelope.context", "_text(self.connection)", "b''"),
        ],
        {},
    ),
    "the context does not bind the hosts": (
        test_a_record_passed_off_as_another_version_class_or_for_other_hosts_does_not_open,
        [
            (
                "edge",
                "authpipe_envelope.context",
                "            self.hosts,\n        )",
                "            bytes(32),\n        )",
            )
        ],
        {"column": "hosts_digest", "value": b"\x01" * 32},
    ),
    "the context does not bind the provider": (
        test_a_record_passed_off_as_another_version_class_or_for_other_hosts_does_not_open,
        [("edge", "authpipe_envelope.context", "_text(self.provider)", "b''")],
        {"column": "provider", "value": "other"},
    ),
    "the context does not bind the version": (
        test_a_record_passed_off_as_another_version_class_or_for_other_hosts_does_not_open,
        [("edge", "authpipe_envelope.context", 'struct.pack(">Q", self.version)', "bytes(8)")],
        {"column": "version", "value": 2},
    ),
    "the floor is not compared": (
        test_yesterdays_row_put_back_after_a_refresh_is_refused_and_todays_token_stands,
        [(KEYSERVICE, "authpipe_keyservice.domain.release", "if wanted.version < lowest:", "if False:")],
        {},
    ),
    "the ciphertext has no tag": (
        test_a_flipped_byte_in_each_part_of_a_stored_record_is_refused,
        [
            (
                "edge",
                "authpipe_envelope.record",
                "AESGCM(material[:32]).decrypt_into(bytes(material[32:44]), sealed, header + context.encode(), padded)",
                f"padded[:] = {_CIPHERS}.Cipher({_CIPHERS}.algorithms.AES(bytes(material[:32])), {_CIPHERS}.modes.CTR("
                "bytes(material[32:44]) + bytes([0, 0, 0, 2]))).decryptor().update(sealed[:-16])",
            )
        ],
        {"position": 80},
    ),
    "the suite is neither read nor bound": (
        test_a_flipped_byte_in_each_part_of_a_stored_record_is_refused,
        [
            ("edge", "authpipe_envelope.record", " or suite != SUITE", ""),
            (KEYSERVICE, "authpipe_envelope.record", " or suite != SUITE", ""),
            ("edge", "authpipe_envelope.record", "header + context.encode()", "context.encode()"),
        ],
        {"position": 3},
    ),
    "a wrapped DEK is bound to no workspace": (
        test_wrapped_keys_copied_from_another_workspace_or_connection_do_not_unwrap,
        [
            (
                KEYSERVICE,
                "authpipe_keyservice.domain.keys",
                'return _fields("DEK", key_domain, workspace, str(version))',
                'return b"DEK"',
            )
        ],
        {},
    ),
}


@pytest.mark.case(1)
@pytest.mark.case(2)
@pytest.mark.case(3)
@pytest.mark.case(4)
@pytest.mark.case(6)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_attacks_see_a_control_that_is_switched_off(mutant: str, notices: Callable[..., None]) -> None:
    attack, patches, given = MUTANTS[mutant]
    notices(attack, *patches, **given)
