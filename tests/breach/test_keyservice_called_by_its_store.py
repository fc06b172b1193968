"""vault taken over, process and certificate: it calls keyservice itself, and opens nothing (cases 9, 10, 12's budget apart)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from authpipe.keyservice.v1 import keyservice_pb2 as pb
from authpipe.keyservice.v1 import keyservice_pb2_grpc
from authpipe.types.v1 import records_pb2
from authpipe_devstack.stack import Stack
from authpipe_grants import ConsumerKey, Issuer
from authpipe_rpc import Peer, PeerConfig, PeerRefused
from authpipe_testing.customer import Customer

API_KEY = "sk_live_an-api-key-that-vault-must-not-see"


class TakenOverVault:
    """Has vault's certificate and database, and an HPKE key of its own."""

    def __init__(self, stack: Stack, workspace: str, connection: str, record: bytes) -> None:
        self._stack = stack
        self.key = ConsumerKey()
        self.workspace, self.connection, self.record = workspace, connection, record

    def sign(self, who: str, **changes: Any) -> str:
        """Signs a grant with the certificate of a process."""
        files = self._stack.files(who)
        clock = changes.pop("by", time.time)
        issuer = Issuer(files.certificate.read_bytes(), files.key.read_bytes(), files.trust_domain, clock)
        arguments: dict[str, Any] = {
            "audience": ("user-credentials/local",),
            "consumer": "gateway/edge",
            "consumer_thumbprint": self.key.thumbprint,
            "purpose": "serve",
            "workspace": self.workspace,
            "connections": (self.connection,),
            "classes": (1, 3, 4, 5),
            "actor": "service:attacker",
            "request_id": "req_attack",
        }
        return issuer.issue(**{**arguments, **changes})

    async def release(self, grant: str, server: str = "keyservice-user-credentials", **changes: Any) -> str:
        """Asks for the record key; gives the reason of the refusal, or RELEASED."""
        name = server.replace("keyservice-", "keyservice/")
        config = PeerConfig(name=name, address=self._stack.layout.address(server))
        peer: Peer[Any] = Peer(config, self._stack.files("vault"), keyservice_pb2_grpc.KeyServiceStub)
        ref = records_pb2.RecordRef(workspace_id=self.workspace, connection_id=self.connection, record_class=3)
        request = pb.ReleaseRecordKeysRequest(
            consumer_public_key=changes.get("public_key", self.key.public),
            challenge=bytes(32),
            grants=[grant] if grant else [],
            items=[
                pb.RecordHeader(
                    ref=changes.get("ref", ref), version=1, header=self.record[:72], request_id="req_attack"
                )
            ],
        )
        try:
            response = await peer.call(lambda stub: stub.ReleaseRecordKeys, request)
        except PeerRefused as error:
            return error.reason
        finally:
            await peer.close()
        item = response.items[0]
        return str(item.refusal.reason) if item.HasField("refusal") else "RELEASED"


@pytest.fixture
def attacker(stack: Stack, customer: Customer, superuser: Callable[[str, str], Any]) -> TakenOverVault:
    """vault, taken over, with one stored record."""
    connection = customer.import_api_key(API_KEY)["id"]
    with superuser("vault", "vault") as vault:
        row = vault.execute(
            "select workspace_id, record from records where connection_id = %s", (connection,)
        ).fetchone()
    return TakenOverVault(stack, row[0], connection, bytes(row[1]))


async def test_the_stage_is_right_a_good_grant_of_the_authority_releases(attacker: TakenOverVault) -> None:
    """Without this the refusals below would prove nothing."""
    assert await attacker.release(attacker.sign("authority")) == "RELEASED"


@pytest.mark.promise("P09")
@pytest.mark.promise("P10")
@pytest.mark.case(9)
async def test_every_other_grant_is_refused_and_leaves_an_event(
    attacker: TakenOverVault, customer: Customer, wait_for: Callable[..., Any]
) -> None:
    good = attacker.sign("authority")
    head, body, signature = good.split(".")
    attempts = {
        "no grant": await attacker.release(""),
        "vault signs itself": await attacker.release(attacker.sign("vault")),
        "edge signs": await attacker.release(attacker.sign("edge")),
        "worker signs": await attacker.release(attacker.sign("worker")),
        "coordinator signs serve": await attacker.release(attacker.sign("coordinator")),
        "other workspace": await attacker.release(attacker.sign("authority", workspace="ws_" + "0" * 24)),
        "other connection": await attacker.release(attacker.sign("authority", connections=("con_" + "0" * 24,))),
        "other purpose": await attacker.release(attacker.sign("authority", purpose="refresh")),
        "other class": await attacker.release(attacker.sign("authority", classes=(1,))),
        "other consumer": await attacker.release(attacker.sign("authority", consumer="vault")),
        "other audience": await attacker.release(attacker.sign("authority", audience=("client-secrets/local",))),
        "other region": await attacker.release(attacker.sign("authority", audience=("user-credentials/us",))),
        "another's HPKE key": await attacker.release(good, public_key=ConsumerKey().public),
        "flipped signature": await attacker.release(
            f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
        ),
        "flipped claim": await attacker.release(f"{head}.{body[:-1]}{'A' if body[-1] != 'A' else 'B'}.{signature}"),
        "no signature": await attacker.release(f"{head}.{body}."),
        "nonsense": await attacker.release("nonsense"),
    }
    assert {
        name: reason for name, reason in attempts.items() if reason not in {"GRANT_REFUSED", "PURPOSE_NOT_ALLOWED"}
    } == {}
    refusals = {"RELEASE_REFUSED"}
    assert wait_for(
        lambda: len([e for e in customer.events(target=attacker.connection) if e["event"] in refusals]) == len(attempts)
    )


@pytest.mark.case(9)
async def test_an_expired_grant_is_refused(attacker: TakenOverVault) -> None:
    grant = attacker.sign("authority", life_seconds=1)
    time.sleep(2.1)
    assert await attacker.release(grant) == "GRANT_TIME"


@pytest.mark.parametrize(
    ("ahead", "answer"),
    [(5, "RELEASED"), (30, "RELEASED"), (40, "GRANT_TIME"), (-5, "RELEASED"), (-30, "RELEASED"), (-50, "GRANT_TIME")],
)
async def test_a_signers_clock_may_differ_by_30_seconds_and_is_named_when_it_differs_by_more(
    attacker: TakenOverVault, ahead: int, answer: str
) -> None:
    grant = attacker.sign("authority", by=lambda: time.time() + ahead)
    assert await attacker.release(grant) == answer
    # Its clock set right, it is served at once.
    assert await attacker.release(attacker.sign("authority")) == "RELEASED"


@pytest.mark.promise("P10")
@pytest.mark.case(9)
async def test_vaults_certificate_is_nobody_at_the_other_key_domain(attacker: TakenOverVault) -> None:
    grant = attacker.sign("authority", audience=("client-secrets/local",), purpose="configure", classes=(6,))
    assert await attacker.release(grant, server="keyservice-client-secrets") == "CALLER_NOT_ALLOWED"


@pytest.mark.case(10)
async def test_serve_never_opens_a_refresh_token(attacker: TakenOverVault) -> None:
    ref = records_pb2.RecordRef(workspace_id=attacker.workspace, connection_id=attacker.connection, record_class=2)
    assert await attacker.release(attacker.sign("authority", classes=(1, 2, 3)), ref=ref) == "PURPOSE_NOT_ALLOWED"
