"""vault's database, vault's certificate and all of keyservice for client secrets in one hand: nothing opens (promise P10).

The attacker has a dump of vault's tables; vault's leaf; and of keyservice/client-secrets its leaf, its database, its token
and the PIN: every key of that key domain. What he lacks is keyservice/user-credentials.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe.keyservice.v1 import keyservice_pb2 as pb
from authpipe.keyservice.v1 import keyservice_pb2_grpc
from authpipe.types.v1 import records_pb2
from authpipe_devstack.stack import Stack
from authpipe_envelope import HEADER_SIZE, Context, Header, IntegrityError, derive_record_key, open_record
from authpipe_grants import ConsumerKey, Issuer
from authpipe_keyservice.domain.keys import ck_aad, dek_aad, kek_label, unwrap_ck
from authpipe_keyservice.errors import KeyTamperedError
from authpipe_rpc import Peer, PeerConfig, PeerRefused
from authpipe_sensitive import Secret
from authpipe_testing.customer import Customer
from authpipe_testing.softhsm import find_module

Superuser = Callable[[str, str], psycopg.Connection[Any]]
API_KEY = b"sk_live_two-parts-taken-over-0123456789"
UNWRAP = """
import asyncio, json, sys
from pathlib import Path
from authpipe_keyservice.errors import KeyTamperedError
from authpipe_keyservice.hsm import Hsm
async def main():
    asked = json.load(sys.stdin)
    hsm = Hsm(Path(asked["module"]), asked["token"], Path(asked["pin"]))
    await hsm.open()
    found = []
    for label, wrapped, aad in asked["deks"]:
        try:
            found.append((await hsm.unwrap(label, bytes.fromhex(wrapped), bytes.fromhex(aad))).hex())
        except KeyTamperedError:  # other tests swap rows
            found.append("")
    print(json.dumps(found))
    await hsm.close()
asyncio.run(main())
"""


def connection_keys(stack: Stack, superuser: Superuser, key_domain: str) -> list[Secret]:
    """Unwraps every connection key of a key domain, as whoever has its database, its token and the PIN."""
    folder = stack.layout.home / "hsm" / key_domain
    with superuser("core", f"keyservice_{key_domain.replace('-', '_')}") as database:
        deks = database.execute("select workspace_id, version, kek_version, wrapped from deks").fetchall()
        rows = database.execute(
            "select workspace_id, connection_id, version, dek_version, wrapped from connection_keys"
            " where state <> 'destroyed'"
        ).fetchall()
    asked = {
        "module": str(find_module()),
        "token": key_domain,
        "pin": str(folder / "pin"),
        "deks": [
            (kek_label(key_domain, kek), bytes(wrapped).hex(), dek_aad(key_domain, workspace, version).hex())
            for workspace, version, kek, wrapped in deks
        ],
    }
    done = subprocess.run(
        [sys.executable, "-c", UNWRAP],
        input=json.dumps(asked),
        env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    unwrapped = zip(deks, json.loads(done.stdout), strict=True)
    opened = {(row[0], row[1]): Secret(bytes.fromhex(dek)) for row, dek in unwrapped if dek}
    found = list(opened.values())
    for workspace, connection, version, dek_version, wrapped in rows:
        aad = ck_aad(key_domain, workspace, connection, version)
        with contextlib.suppress(KeyError, KeyTamperedError):
            found.append(unwrap_ck(opened[workspace, dek_version], bytes(wrapped), aad))
    return found


def opened_with(keys: list[Secret], dump: list[tuple[Any, ...]]) -> list[bytes]:
    """Tries every key on every record of vault's dump, each with its true context."""
    found = []
    for workspace, connection, record_class, version, record, provider, hosts in dump:
        header = Header.parse(bytes(record)[:HEADER_SIZE])
        context = Context(
            "devstack",
            "local",
            "user-credentials",
            workspace,
            connection,
            record_class,
            version,
            provider,
            bytes(hosts),
        )
        for each in keys:
            try:
                plaintext = open_record(
                    derive_record_key(each, header.key_version, header.salt, record_class), context, bytes(record)
                )
            except IntegrityError:
                continue
            found.append(bytes(plaintext.expose()))
    return found


@pytest.fixture
def dump(new_customer: Callable[..., Customer], stack: Stack, superuser: Superuser) -> list[tuple[Any, ...]]:
    """The records of one customer, who has client secrets too."""
    victim = new_customer()
    victim.configure(stack.layout.playground_issuer)
    mine = {victim.import_api_key(API_KEY.decode())["id"] for _ in range(3)}
    with superuser("vault", "vault") as vault:
        rows = vault.execute(
            "select workspace_id, connection_id, record_class, version, record, provider, hosts_digest from records"
            " where connection_id = any(%s)",
            (list(mine),),
        ).fetchall()
    assert len(rows) == 3
    return rows


@pytest.mark.promise("P10")
def test_no_key_of_the_other_key_domain_opens_a_record_of_vault(
    dump: list[tuple[Any, ...]], stack: Stack, superuser: Superuser
) -> None:
    keys = connection_keys(stack, superuser, "client-secrets")
    assert len(keys) >= 2, "the attacker does hold keys"
    assert opened_with(keys, dump) == []


def test_the_stage_is_right_the_same_attack_with_vaults_own_keyservice_opens_them(
    dump: list[tuple[Any, ...]], stack: Stack, superuser: Superuser
) -> None:
    """keyservice and vault's database taken together open records: docs/threat-model.md says so."""
    assert opened_with(connection_keys(stack, superuser, "user-credentials"), dump) == [API_KEY] * 3


@pytest.mark.promise("P10")
@pytest.mark.case(9)
async def test_their_certificates_release_nothing_with_grants_that_they_sign_themselves(
    dump: list[tuple[Any, ...]], stack: Stack
) -> None:
    workspace, connection, record_class, version, record, *_ = dump[0]
    key = ConsumerKey()
    reasons = set()
    for signer in ("vault", "keyservice-client-secrets"):
        files = stack.files(signer)
        issuer = Issuer(files.certificate.read_bytes(), files.key.read_bytes(), files.trust_domain, time.time)
        for caller in ("vault", "keyservice-client-secrets"):
            for server in ("keyservice-user-credentials", "keyservice-client-secrets"):
                domain = server.removeprefix("keyservice-")
                grant = issuer.issue(
                    audience=(f"{domain}/local",),
                    consumer="gateway/edge",
                    consumer_thumbprint=key.thumbprint,
                    purpose="serve",
                    workspace=workspace,
                    connections=(connection,),
                    classes=(1, 3, 4, 5),
                    actor="service:attacker",
                    request_id="req_attack",
                )
                config = PeerConfig(name=f"keyservice/{domain}", address=stack.layout.address(server))
                peer: Peer[Any] = Peer(config, stack.files(caller), keyservice_pb2_grpc.KeyServiceStub)
                ref = records_pb2.RecordRef(workspace_id=workspace, connection_id=connection, record_class=record_class)
                header = pb.RecordHeader(ref=ref, version=version, header=bytes(record)[:HEADER_SIZE])
                request = pb.ReleaseRecordKeysRequest(
                    consumer_public_key=key.public, challenge=bytes(32), grants=[grant], items=[header]
                )
                try:
                    response = await peer.call(lambda stub: stub.ReleaseRecordKeys, request)
                    reasons.add(response.items[0].refusal.reason or "RELEASED")
                except PeerRefused as error:
                    reasons.add(error.reason)
                finally:
                    await peer.close()
    assert reasons == {"PURPOSE_NOT_ALLOWED", "CALLER_NOT_ALLOWED"}
