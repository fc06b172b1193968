"""What one part in an attacker's hand is worth: a store's certificate with good grants, both databases, one DEK, one CK."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from authpipe_rpc import Peer, PeerConfig
from authpipe.keyservice.v1 import keyservice_pb2 as pb
from authpipe.keyservice.v1 import keyservice_pb2_grpc
from authpipe.types.v1 import records_pb2
from authpipe_devstack.stack import Stack
from authpipe_envelope import Header, UnwrapError, derive_record_key, unwrap_key
from authpipe_grants import ConsumerKey, Issuer
from authpipe_keyservice.domain.keys import ck_aad, dek_aad, kek_label
from authpipe_sensitive import Secret
from authpipe_testing.customer import Customer
from authpipe_testing.softhsm import find_module

DOMAIN = "user-credentials"
SECRET = "sk_live_blast-radius-0123456789"


@pytest.fixture
def other(keys: Stack) -> Iterator[Customer]:
    """Another customer."""
    workspace, key = asyncio.run(keys.create_workspace("other"))
    with Customer(keys.layout.rest_url, str(keys.public_ca.certificate_file), key.decode(), workspace) as made:
        yield made


def vault_rows(keys: Stack, workspace: str) -> list[tuple[str, int, bytes]]:
    with psycopg.connect(**keys.clusters["vault"].conninfo("dba", "vault"), autocommit=True) as vault:  # type: ignore[arg-type]
        rows = vault.execute(
            "select connection_id, record_class, record from records where workspace_id = %s", (workspace,)
        ).fetchall()
    return [(row[0], int(row[1]), bytes(row[2])) for row in rows]


@pytest.mark.promise("P26")
@pytest.mark.case(12)
async def test_vaults_certificate_and_a_good_grant_as_fast_as_possible_trips_the_bound_and_others_are_served(
    keys: Stack, tenant: Customer, other: Customer, wait_for: Callable[..., Any]
) -> None:
    connection, elsewhere = tenant.import_api_key(SECRET)["id"], other.import_api_key(SECRET)["id"]
    record = vault_rows(keys, tenant.workspace)[0][2]
    key, files = ConsumerKey(), keys.files("authority")
    grant = Issuer(files.certificate.read_bytes(), files.key.read_bytes(), files.trust_domain, time.time).issue(
        audience=("user-credentials/local",),
        consumer="gateway/edge",
        consumer_thumbprint=key.thumbprint,
        purpose="serve",
        workspace=tenant.workspace,
        connections=(connection,),
        classes=(3,),
        actor="service:attacker",
        request_id="req_flood",
    )
    ref = records_pb2.RecordRef(workspace_id=tenant.workspace, connection_id=connection, record_class=3)
    item = pb.RecordHeader(ref=ref, version=1, header=record[:72], request_id="req_flood")
    request = pb.ReleaseRecordKeysRequest(
        consumer_public_key=key.public, challenge=bytes(32), grants=[grant], items=[item] * 400
    )
    config = PeerConfig(name=f"keyservice/{DOMAIN}", address=keys.layout.address("keyservice-user-credentials"))
    peer: Peer[Any] = Peer(config, keys.files("vault"), keyservice_pb2_grpc.KeyServiceStub)
    reasons: set[str] = set()
    for _ in range(12):
        answer = await peer.call(lambda stub: stub.ReleaseRecordKeys, request)
        reasons |= {each.refusal.reason if each.HasField("refusal") else "RELEASED" for each in answer.items}
        assert (await asyncio.to_thread(other.token, elsewhere)).status_code == 200
    await peer.close()
    assert reasons == {"RELEASED", "RELEASE_BUDGET_EXCEEDED"}

    def alarm() -> Any:
        return tenant.get("/audit/events", event="RELEASE_BUDGET_EXCEEDED").json()["events"]

    assert await asyncio.to_thread(wait_for, alarm, 10)
    assert not other.get("/audit/events", event="RELEASE_BUDGET_EXCEEDED").json()["events"]


@pytest.mark.promise("P04")
def test_both_databases_without_the_hsm_open_nothing(
    keys: Stack, tenant: Customer, database: Callable[..., Any]
) -> None:
    tenant.import_api_key(SECRET)
    stolen = [
        bytes(row[0])
        for table in ("deks", "connection_keys")
        for row in database(f"select wrapped from {table} where workspace_id = %s", tenant.workspace)
    ]
    stolen += [bytes(row[0]) for row in database("select canary from kek_versions")]
    assert len(stolen) >= 3
    # Everything that could be a key, as a DEK, as a connection key: each 32 bytes of each of them.
    candidates = {blob[at : at + 32] for blob in stolen for at in range(max(0, len(blob) - 31))}
    wrapped = database(
        "select connection_id, version, wrapped from connection_keys where workspace_id = %s", tenant.workspace
    )
    records = vault_rows(keys, tenant.workspace)
    for candidate in candidates:
        for connection, version, blob in wrapped:
            with pytest.raises(UnwrapError):
                unwrap_key(Secret(candidate), bytes(blob), ck_aad(DOMAIN, tenant.workspace, connection, version))
        for _, record_class, record in records:
            assert not opens(candidate, record_class, record)


def opens(connection_key: bytes, record_class: int, record: bytes) -> bool:
    """Says whether a connection key fits a record: its commitment."""
    header = Header.parse(record[:72])
    key = derive_record_key(Secret(connection_key), header.key_version, header.salt, record_class)
    return key.commits_to(header.commitment)


_UNWRAP = """
import asyncio, json, sys
from pathlib import Path
from authpipe_keyservice.hsm import Hsm
async def main():
    asked = json.load(sys.stdin)
    hsm = Hsm(Path(asked["module"]), "user-credentials", Path(asked["pin"]))
    await hsm.open()
    print((await hsm.unwrap(asked["label"], bytes.fromhex(asked["wrapped"]), bytes.fromhex(asked["aad"]))).hex())
    await hsm.close()
asyncio.run(main())
"""


def dek_of(keys: Stack, database: Callable[..., Any], workspace: str) -> Secret:
    """Unwraps a workspace's DEK, as whoever once had it in hand."""
    version, kek_version, wrapped = database(
        "select version, kek_version, wrapped from deks where workspace_id = %s", workspace
    )[0]
    folder = keys.layout.home / "hsm" / DOMAIN
    asked = {
        "module": str(find_module()),
        "pin": str(folder / "pin"),
        "label": kek_label(DOMAIN, kek_version),
        "wrapped": bytes(wrapped).hex(),
        "aad": dek_aad(DOMAIN, workspace, version).hex(),
    }
    done = subprocess.run(
        [sys.executable, "-c", _UNWRAP],
        input=json.dumps(asked),
        env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return Secret(bytes.fromhex(done.stdout.strip()))


@pytest.mark.promise("P03")
@pytest.mark.promise("P05")
def test_one_workspaces_dek_opens_nothing_of_another_and_one_connections_key_nothing_of_another(
    keys: Stack, tenant: Customer, other: Customer, database: Callable[..., Any]
) -> None:
    for number in range(3):
        tenant.import_api_key(f"{SECRET}-{number}")
        other.import_api_key(f"{SECRET}-{number}")
    dek = dek_of(keys, database, tenant.workspace)
    assert dek.expose() != dek_of(keys, database, other.workspace).expose(), "each workspace has its own"
    keys_of = "select connection_id, version, wrapped from connection_keys where workspace_id = %s"
    opened: dict[str, Secret] = {}
    for connection, version, wrapped in database(keys_of, tenant.workspace):
        opened[connection] = unwrap_key(dek, bytes(wrapped), ck_aad(DOMAIN, tenant.workspace, connection, version))
    assert len(opened) == 3, "the stage is right: its own it opens"
    for connection, version, wrapped in database(keys_of, other.workspace):
        for workspace in (other.workspace, tenant.workspace):
            with pytest.raises(UnwrapError):
                unwrap_key(dek, bytes(wrapped), ck_aad(DOMAIN, workspace, connection, version))
    records = vault_rows(keys, tenant.workspace) + vault_rows(keys, other.workspace)
    assert len(records) == 6
    for connection, key in opened.items():
        fits = [name for name, record_class, record in records if opens(bytes(key.expose()), record_class, record)]
        assert fits == [connection]
