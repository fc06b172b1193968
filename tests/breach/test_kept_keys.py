"""A key that worker may keep for two seconds: whoever has edge, or worker's certificate, gets no use of it that vault did not judge.

worker has the credential sealed and its key (docs/decisions/0007); what it opens it for is vault's to say, each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from authpipe_rpc import Peer, PeerConfig, PeerRefused, PeerUnavailable  # first: it sets grpc's cipher list
import pytest
from authpipe.authority.v1 import authority_pb2, authority_pb2_grpc
from authpipe.oauth.v1 import coordinator_pb2, coordinator_pb2_grpc, worker_pb2, worker_pb2_grpc
from authpipe.types.v1 import records_pb2
from authpipe.vault.v1 import vault_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_grants import ConsumerKey, Issuer, thumbprint
from authpipe_testing.customer import Customer

API_KEY = "sk_live_an-api-key-that-worker-may-keep-0123456789"
_NAMES = {"authority": "gateway/authority", "coordinator": "oauth/coordinator", "worker": "oauth/worker"}


class Pass(NamedTuple):
    """What edge needs to have a request carried: the grant of its customer, the route, and worker's key."""

    grant: str
    route: coordinator_pb2.GetProxyRouteResponse
    thumbprint: str


class TakenOverEdge:
    """Has edge's certificate, and a customer whose API key passed through it."""

    def __init__(self, stack: Stack, customer: Customer) -> None:
        self._stack = stack
        self._customer = customer

    def _peer(self, server: str, stub: Any) -> Peer[Any]:
        address = self._stack.layout.address(server)
        return Peer(PeerConfig(name=_NAMES[server], address=address), self._stack.files("edge"), stub)

    def sign(self, who: str, connection: str, key: str, **changes: Any) -> str:
        """Signs a grant with the certificate of a process, for worker."""
        files = self._stack.files(who)
        issuer = Issuer(files.certificate.read_bytes(), files.key.read_bytes(), files.trust_domain, time.time)
        claims: dict[str, Any] = {
            "audience": ("user-credentials/local",),
            "consumer": "oauth/worker",
            "consumer_thumbprint": key,
            "purpose": "proxy",
            "workspace": self._customer.workspace,
            "connections": (connection,),
            "classes": (1, 3, 4),
            "actor": "service:attacker",
            "request_id": "req_attack",
        }
        return issuer.issue(**{**claims, **changes})

    async def ask(self, connection: str) -> Pass:
        """Asks as edge does, with the customer's API key."""
        worker = self._peer("worker", worker_pb2_grpc.WorkerStub)
        authority = self._peer("authority", authority_pb2_grpc.AuthorityStub)
        coordinator = self._peer("coordinator", coordinator_pb2_grpc.CoordinatorStub)
        try:
            key = await worker.call(lambda stub: stub.GetConsumerKey, worker_pb2.GetConsumerKeyRequest())
            print_of = thumbprint(key.public_key)
            api_key = str(self._customer.http.headers["authorization"]).removeprefix("Bearer ").encode()
            item = authority_pb2.ActRequest(
                api_key=api_key,
                act=authority_pb2.ACT_PROXY,
                target=connection,
                request_id="req_attack",
                worker_thumbprint=print_of,
            )
            asked = authority_pb2.AuthorizeRequest(consumer_public_key=ConsumerKey().public, items=[item])
            (verdict,) = (await authority.call(lambda stub: stub.Authorize, asked)).items
            wanted = coordinator_pb2.GetProxyRouteRequest(
                grant=verdict.manage_grant, connection_id=connection, worker_thumbprint=print_of
            )
            route = await coordinator.call(lambda stub: stub.GetProxyRoute, wanted)
        finally:
            for each in (worker, authority, coordinator):
                await each.close()
        return Pass(verdict.record_grant, route, print_of)

    async def proxy(self, connection: str, of: Pass, grant: str) -> int | str:
        """Has a request carried under a grant; gives the Provider's status, or the reason of the refusal."""
        job = worker_pb2.Job(
            workspace_id=self._customer.workspace,
            connection_id=connection,
            provider=of.route.provider,
            endpoints=of.route.endpoints,
            dialect=of.route.dialect,
            values=of.route.values,
            credential_grant=grant,
            request_id="req_attack",
            consumer_thumbprint=of.thumbprint,
        )
        head = worker_pb2.ProxyHead(job=job, method="GET", path="/attack")

        async def once() -> Any:
            yield worker_pb2.ProxyRequest(head=head)

        worker = self._peer("worker", worker_pb2_grpc.WorkerStub)
        try:
            async for part in worker.stream(lambda stub: stub.Proxy, once(), 30):
                return int(part.head.status)
        except (PeerRefused, PeerUnavailable) as refused:
            return refused.reason
        finally:
            await worker.close()
        raise AssertionError("It was neither answered nor refused.")


@pytest.fixture(scope="module")
def provider(customer: Customer, api: Any) -> Iterator[str]:
    """A Provider whose API takes API keys."""
    document = {
        "name": "kept-keys",
        "display_name": "Kept keys",
        "documentation": ["https://example.com/docs"],
        "api_key": {"in": "header", "name": "X-Api-Key"},
        "api": {"base_urls": [api.url]},
    }
    assert customer.post("/providers", document).status_code == 201
    yield "kept-keys"
    customer.delete("/providers/kept-keys")


@dataclass
class Used:
    """A connection whose key worker has, as it was just used."""

    id: str
    customer: Customer
    api: Any
    count: int = 0

    def use(self) -> int:
        """Uses it as its owner does; counts what was carried."""
        status = self.customer.http.request("GET", f"/v1/proxy/{self.id}/x").status_code
        self.count += status == 200
        return status

    def events(self, name: str) -> int:
        """Counts its events of a name."""
        return len(self.customer.events(event=name, target=self.id))

    def is_on_record(self) -> bool:
        """Whether there is an event for each use."""
        return self.events("RECORD_KEY_RELEASED") + self.events("RECORD_KEY_REUSED") >= self.count


@pytest.fixture
def used(customer: Customer, provider: str, api: Any) -> Used:
    body = {"kind": "api_key", "end_user_id": "kept", "provider": provider, "api_key": API_KEY}
    made = Used(str(customer.post("/connections", body).raise_for_status().json()["id"]), customer, api)
    for _ in range(2):
        assert made.use() == 200
    return made


@pytest.mark.promise("P09")
@pytest.mark.case(9)
async def test_edge_taken_over_has_nothing_kept_used_without_a_grant_of_authority_for_just_that(
    stack: Stack, customer: Customer, used: Used, wait_for: Callable[..., Any]
) -> None:
    edge = TakenOverEdge(stack, customer)
    other = customer.import_api_key(API_KEY + "-other")["id"]
    good = await edge.ask(used.id)
    assert await edge.proxy(used.id, good, good.grant) == 200, "without this the refusals below would prove nothing"

    def sign(who: str = "authority", **changes: Any) -> str:
        return edge.sign(who, used.id, good.thumbprint, **changes)

    assert await edge.proxy(used.id, good, sign()) == 200
    head, body, signature = good.grant.split(".")
    grants = {
        "none": "",
        "its own": sign("edge"),
        "worker's own": sign("worker"),
        "vault's own": sign("vault"),
        "coordinator's": sign("coordinator"),
        "for another connection": sign(connections=(other,)),
        "of another workspace": sign(workspace="ws_" + "0" * 24),
        "to serve": sign(purpose="serve"),
        "for another class": sign(classes=(1,)),
        "for another consumer": sign(consumer="gateway/edge"),
        "for another worker's key": sign(consumer_thumbprint=ConsumerKey().thumbprint),
        "for another region": sign(audience=("user-credentials/us",)),
        "with a flipped signature": f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
    }
    heard: dict[str, int | str] = {}
    for name, grant in grants.items():
        assert used.use() == 200, "its key is kept"
        before = len(used.api.seen)
        heard[name] = await edge.proxy(used.id, good, grant)
        assert len(used.api.seen) == before, name
    assert {name: each for name, each in heard.items() if each not in {"GRANT_REFUSED", "PURPOSE_NOT_ALLOWED"}} == {}
    # Each attempt is on record, as keyservice judged it; one that worker found wrong before is no attempt.
    assert wait_for(lambda: used.events("RELEASE_REFUSED") >= len(grants) - 1)
    assert used.use() == 200


@pytest.mark.promise("P09")
@pytest.mark.case(9)
async def test_a_grant_that_is_over_uses_nothing_that_is_kept(stack: Stack, customer: Customer, used: Used) -> None:
    edge = TakenOverEdge(stack, customer)
    good = await edge.ask(used.id)
    short = edge.sign("authority", used.id, good.thumbprint, life_seconds=1)
    assert await edge.proxy(used.id, good, short) == 200
    await asyncio.sleep(2.1)
    assert used.use() == 200, "its key is kept"
    before = len(used.api.seen)
    assert await edge.proxy(used.id, good, short) == "GRANT_TIME"
    assert len(used.api.seen) == before


@pytest.mark.promise("P11")
@pytest.mark.case(26)
async def test_with_a_good_grant_a_kept_key_is_of_no_use_from_the_second_of_the_disconnect(
    stack: Stack, customer: Customer, used: Used
) -> None:
    edge = TakenOverEdge(stack, customer)
    good = await edge.ask(used.id)
    assert used.use() == 200, "its key is kept"
    customer.delete(f"/connections/{used.id}").raise_for_status()
    before = len(used.api.seen)
    # authority does not know of it yet, or is not asked: the grant has most of its minute left.
    heard = await edge.proxy(used.id, good, edge.sign("authority", used.id, good.thumbprint))
    assert heard in {"CONNECTION_DISCONNECTED", "RECORD_NOT_FOUND", "CONNECTION_KEY_ERASED"}
    assert len(used.api.seen) == before


@pytest.mark.promise("P31")
@pytest.mark.case(28)
def test_while_vaults_database_is_away_nothing_kept_is_used_and_each_use_before_and_after_has_its_event(
    stack: Stack, used: Used, wait_for: Callable[..., Any]
) -> None:
    assert used.use() == 200, "its key is kept"
    stack.clusters["vault"].stop()
    try:
        before = len(used.api.seen)
        assert used.use() == 503
        assert len(used.api.seen) == before
    finally:
        stack.clusters["vault"].start()
        assert wait_for(lambda: all(each["healthy"] for each in stack.status()["processes"]))
    assert wait_for(lambda: used.use() == 200)
    assert wait_for(used.is_on_record)


def test_what_keyservice_does_not_release_any_more_is_not_used_when_its_seconds_are_over(
    stack: Stack, used: Used, wait_for: Callable[..., Any]
) -> None:
    stack.send("keyservice-user-credentials", signal.SIGSTOP)
    try:
        time.sleep(2.5)
        before = len(used.api.seen)
        assert used.use() == 503
        assert len(used.api.seen) == before
    finally:
        stack.send("keyservice-user-credentials", signal.SIGCONT)
    assert wait_for(lambda: used.use() == 200)


class TakenOverWorker:
    """Has worker's certificate, and asks vault itself."""

    def __init__(self, stack: Stack, used: Used, record: bytes) -> None:
        self._stack = stack
        self._used = used
        self._record = record
        self.key = ConsumerKey()
        self.edge = TakenOverEdge(stack, used.customer)

    async def reuse(self, who: str = "worker", **changes: Any) -> Any:
        """Asks to open the record again; gives the answers, or the reason of the refusal."""
        grant = changes.pop("grant", None)
        if grant is None:
            grant = self.edge.sign("authority", self._used.id, self.key.thumbprint)
        ref = records_pb2.RecordRef(
            workspace_id=self._used.customer.workspace,
            connection_id=self._used.id,
            record_class=records_pb2.RECORD_CLASS_API_KEY,
        )
        item: dict[str, Any] = {
            "ref": ref, "version": 1, "digest": hashlib.sha256(self._record).digest(), "grant_index": 0,
            "request_id": "req_attack",
        }  # fmt: skip
        request = records_pb2.ReuseRecordsRequest(
            consumer_public_key=self.key.public,
            grants=[grant] if grant else [],
            items=[records_pb2.RecordKept(**{**item, **changes})],
        )
        config = PeerConfig(name="vault", address=self._stack.layout.address("vault"))
        peer: Peer[Any] = Peer(config, self._stack.files(who), vault_pb2_grpc.VaultStub)
        try:
            return list((await peer.call(lambda stub: stub.ReuseRecords, request)).allowed)
        except (PeerRefused, PeerUnavailable) as refused:
            return refused.reason
        finally:
            await peer.close()


@pytest.fixture
def worker(stack: Stack, used: Used, superuser: Callable[[str, str], Any]) -> TakenOverWorker:
    with superuser("vault", "vault") as vault:
        row = vault.execute("select record from records where connection_id = %s", (used.id,)).fetchone()
    return TakenOverWorker(stack, used, bytes(row[0]))


@pytest.mark.promise("P31")
async def test_whoever_has_workers_certificate_is_told_nothing_without_a_grant_and_leaves_no_use(
    worker: TakenOverWorker, used: Used, wait_for: Callable[..., Any]
) -> None:
    assert wait_for(used.is_on_record)
    before = used.events("RECORD_KEY_REUSED")
    assert await worker.reuse() == [True]
    assert wait_for(lambda: used.events("RECORD_KEY_REUSED") == before + 1)
    signed: Callable[..., str] = worker.edge.sign
    attempts: dict[str, Awaitable[Any]] = {
        "no grant": worker.reuse(grant=""),
        "its own grant": worker.reuse(grant=signed("worker", used.id, worker.key.thumbprint)),
        "another's key": worker.reuse(grant=signed("authority", used.id, ConsumerKey().thumbprint)),
        "an index beyond the grants": worker.reuse(grant_index=7),
        "an older version": worker.reuse(version=0),
        "a newer version": worker.reuse(version=2),
        "a version that is no version": worker.reuse(version=2**64 - 1),
        "other bytes": worker.reuse(digest=bytes(32)),
        "no bytes": worker.reuse(digest=b""),
    }
    assert {name: heard for name, each in attempts.items() if (heard := await each) != [False]} == {}
    assert await worker.reuse("edge") == "CALLER_NOT_ALLOWED"
    await asyncio.sleep(1)
    assert used.events("RECORD_KEY_REUSED") == before + 1
