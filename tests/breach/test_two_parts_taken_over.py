"""vault's database, vault's certificate and all of keyservice for client secrets in one hand: nothing opens (promise P10).

The attacker has a dump of vault's tables; vault's leaf; and of keyservice/client-secrets its leaf, its database, its token
and the PIN: every key of that key domain. What he lacks is keyservice/user-credentials.
"""

from __future__ import annotations

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
from authpipe_rpc import Peer, PeerConfig, PeerRefused
from authpipe_sensitive import Secret
from authpipe_testing.customer import Customer

Superuser = Callable[[str, str], psycopg.Connection[Any]]
API_KEY = b"sk_live_two-parts-taken-over-0123456789"


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
    dump: list[tuple[Any, ...]], connection_keys: Callable[[str], list[Secret]]
) -> None:
    keys = connection_keys("client-secrets")
    assert len(keys) >= 2, "the attacker does hold keys"
    assert opened_with(keys, dump) == []


def test_the_stage_is_right_the_same_attack_with_vaults_own_keyservice_opens_them(
    dump: list[tuple[Any, ...]], connection_keys: Callable[[str], list[Secret]]
) -> None:
    """keyservice and vault's database taken together open records: docs/threat-model.md says so."""
    assert opened_with(connection_keys("user-credentials"), dump) == [API_KEY] * 3


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
