"""The proxy's rules: what is carried, what is not, and that a workspace does not take the way out of all."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from authpipe_consumer.words import Opened, Want
from authpipe_envelope import RecordClass, hosts_digest
from authpipe_oauth_worker.bodies import Bodies
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.nonces import Nonces
from authpipe_oauth_worker.domain.proxying import Answered, Outgoing, ProxyJob, Proxying, Ways, whole_of
from authpipe_oauth_worker.errors import (
    ApiUnknownError,
    BodyTooLargeError,
    NotBoundError,
    HostError,
    NotProxiableError,
    ProxyBusyError,
    ProxyRequestError,
)
from authpipe_oauth_worker.placing import place
from authpipe_oauth_worker.proofs import Proofs
from authpipe_providers import Placement, Signing
from authpipe_rpc import PeerRefused
from authpipe_sensitive import DomainError, Secret, Status

BASE = "https://api.example/v1"
KEY = Placement("header", "X-Key", "")
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Stage:
    """A vault and a way out, and what went it."""

    def __init__(self, record_class: RecordClass = RecordClass.API_KEY, payload: bytes = b"the-key") -> None:
        self.record_class, self.payload = record_class, payload
        self.hosts = {"api.example"}
        self.opened = 0
        self.key = b""
        self.refuses = False
        self.wants = ""
        self.sent: list[Outgoing] = []
        self.bodies: list[bytes] = []
        self.returned: tuple[tuple[str, bytes], ...] = ()
        self.proxying = Proxying(Desk(self, self, self, Bodies(), lambda: NOW, Proofs(), Nonces()), self, place)  # type: ignore[arg-type]

    async def open(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        self.opened += 1
        return [self._one(each) for each in wants]

    def _one(self, want: Want) -> Opened | DomainError:
        payload, record_class = self.payload, self.record_class
        if want.record_class is RecordClass.DPOP_KEY:
            if not self.key:
                return PeerRefused("RECORD_NOT_FOUND", Status.NOT_FOUND)
            payload, record_class = self.key, want.record_class
        return Opened(Secret(payload), record_class, 1, "p", hosts_digest(self.hosts), None, "…", 0)

    @asynccontextmanager
    async def stream(self, outgoing: Outgoing, sent: AsyncIterator[bytes] | None, _: Any) -> AsyncIterator[Answered]:
        self.sent.append(outgoing)
        self.bodies.append(b"".join([each async for each in sent]) if sent is not None else b"")

        async def body() -> AsyncIterator[bytes]:
            yield b"ok"

        proof = shown(outgoing).get("dpop", b"")
        if self.refuses or (self.wants and proof and claims(proof).get("nonce") != self.wants):
            yield Answered(401, (("dpop-nonce", self.wants.encode()),), body())
        else:
            yield Answered(200, self.returned, body())


def job(**more: Any) -> ProxyJob:
    given: dict[str, Any] = {
        "workspace": "ws", "connection": "con", "provider": "p", "hosts": frozenset({"api.example"}),
        "base_urls": (BASE,), "api_headers": (("x-version", "1"),), "ways": Ways(Placement(), KEY), "dpop": False, "signs_as": None, "pins": (),
        "grant": "g", "request_id": "r", "method": "GET", "base_url": "", "path": "/a", "query": "", "headers": (),
        "content_length": None,
    }  # fmt: skip
    return ProxyJob(**given | more)


def shown(outgoing: Outgoing) -> dict[str, bytes]:
    return {name: bytes(v.expose()) if isinstance(v, Secret) else v for name, v in outgoing.headers.items()}


def claims(proof: bytes) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(proof.split(b".")[1] + b"==")))


@pytest.mark.promise("P09")
@pytest.mark.parametrize(
    ("record_class", "payload", "placement", "header", "value"),
    [
        (RecordClass.API_KEY, b"k", KEY, "x-key", b"k"),
        (RecordClass.API_KEY, b"k", Placement("header", "Authorization", "Token "), "authorization", b"Token k"),
        (RecordClass.API_KEY, b"k", Placement("basic", "", ""), "authorization", b"Basic azo="),
        (RecordClass.BASIC, b'{"username":"u","password":"p"}', KEY, "authorization", b"Basic dTpw"),
        (RecordClass.ACCESS, b'{"access_token":"t","token_type":"Bearer"}', KEY, "authorization", b"Bearer t"),
    ],
)
async def test_a_credential_is_put_where_its_api_wants_it(
    record_class: RecordClass, payload: bytes, placement: Placement, header: str, value: bytes
) -> None:
    stage = Stage(record_class, payload)
    async with stage.proxying.carry(job(ways=Ways(Placement(), placement)), None):
        assert shown(stage.sent[0]) == {"x-version": b"1", header: value}


async def test_a_credential_in_the_query_is_escaped_and_stays_a_secret() -> None:
    stage = Stage(payload=b"a&b=c")
    async with stage.proxying.carry(job(ways=Ways(Placement(), Placement("query", "key", ""))), None):
        assert stage.sent[0].query == Secret(b"key=a%26b%3Dc")
        assert "key" not in stage.sent[0].url


@pytest.mark.promise("P09")
@pytest.mark.case(22)
@pytest.mark.parametrize(
    "change",
    [
        {"method": "CONNECT"}, {"method": "TRACE"}, {"method": "get"}, {"base_url": "https://evil.example/v1"},
        {"base_url": BASE + "/"}, {"base_urls": ("https://evil.example",)}, {"path": "a"},
        {"path": "/../x"}, {"path": "/a/%2e%2e/x"}, {"path": "/a/%252e%252e"}, {"path": "/a/.%2e/x"}, {"path": "/a b"},
        {"path": "/a\r\nx: y"}, {"path": "/a?b"}, {"path": "/a#b"}, {"path": "/@evil.example"[1:]}, {"query": "a b"},
        {"query": "a#b"}, {"query": "a\r\n"}, {"headers": (("x", b"a\r\nb: c"),)}, {"headers": (("x y", b"a"),)},
        {"headers": tuple((f"x-{n}", b"1") for n in range(65))}, {"path": "/" + "a" * 9000},
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_no_request_to_this_api_is_refused_before_a_credential_is_opened(change: dict[str, Any]) -> None:
    stage = Stage()
    with pytest.raises(ProxyRequestError):
        async with stage.proxying.carry(job(**change), None):
            pass
    assert (stage.opened, stage.sent) == (0, [])


@pytest.mark.promise("P09")
@pytest.mark.case(22)
async def test_a_credential_for_other_hosts_is_not_sent() -> None:
    stage = Stage()
    stage.hosts = {"api.example", "more.example"}
    with pytest.raises(HostError):
        async with stage.proxying.carry(job(), None):
            pass
    assert stage.sent == []


async def test_a_webhook_secret_goes_nowhere_and_an_unknown_place_is_none() -> None:
    for stage, placement in ((Stage(RecordClass.WEBHOOK_SECRET), KEY), (Stage(), Placement("", "", ""))):
        with pytest.raises(NotProxiableError):
            async with stage.proxying.carry(job(ways=Ways(Placement(), placement)), None):
                pass
        assert stage.sent == []


async def test_a_workspace_has_a_hundred_under_way_and_others_go_on() -> None:
    stage = Stage()
    async with AsyncExitStack() as going:
        for _ in range(100):
            await going.enter_async_context(stage.proxying.carry(job(), None))
        with pytest.raises(ProxyBusyError):
            async with stage.proxying.carry(job(), None):
                pass
        async with stage.proxying.carry(job(workspace="other"), None):
            pass
    async with stage.proxying.carry(job(), None):
        pass


SIGNED = Signing("hmac", signed="{body_hash}", headers=(("X-Sign", "{signature}"),))
PAIR = b'{"username":"id","password":"secret"}'


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


async def test_a_body_that_is_signed_arrives_as_it_was_signed_however_it_came() -> None:
    stage = Stage(RecordClass.BASIC, PAIR)
    for sizes in ((300,), (100, 200)):
        async with stage.proxying.carry(job(ways=Ways(Placement(), KEY, SIGNED)), pieces(*sizes)):
            pass
    assert stage.bodies == [b"x" * 300] * 2
    assert shown(stage.sent[0])["x-sign"] == shown(stage.sent[1])["x-sign"]


async def test_a_body_that_is_too_large_to_be_signed_is_refused_and_nothing_is_sent() -> None:
    stage = Stage(RecordClass.BASIC, PAIR)
    signed = Ways(Placement(), KEY, SIGNED)
    async with stage.proxying.carry(job(ways=signed), pieces(1_048_576)):
        pass
    with pytest.raises(BodyTooLargeError):
        async with stage.proxying.carry(job(ways=signed), pieces(1_048_576, 1)):
            pass
    assert len(stage.sent) == 1


@pytest.mark.parametrize(
    ("record_class", "payload", "signing"),
    [
        (RecordClass.BASIC, PAIR, SIGNED._replace(signed="{timestamp}{target}")),
        (RecordClass.BASIC, PAIR, Signing("sigv4", service="s3", region="eu-central-1")),
        (RecordClass.ACCESS, b'{"access_token":"t","token_type":"Bearer"}', SIGNED),
    ],
    ids=["the body is not signed", "S3", "an access token"],
)
async def test_a_body_that_no_signature_covers_may_have_any_size(
    record_class: RecordClass, payload: bytes, signing: Signing
) -> None:
    stage = Stage(record_class, payload)
    async with stage.proxying.carry(job(ways=Ways(Placement(), KEY, signing)), pieces(1_048_576, 1)):
        pass
    assert stage.bodies == [b"x" * 1_048_577]


BOUND = b'{"access_token":"t","token_type":"DPoP"}'


def bound(wants: str = "") -> Stage:
    """A connection whose token is bound to a key, and a server that wants a nonce in proofs of it, or none."""
    stage = Stage(RecordClass.ACCESS, BOUND)
    stage.key, stage.wants = bytes(Proofs().new_key().expose()), wants
    return stage


@pytest.mark.promise("P09")
async def test_a_token_that_is_bound_to_a_key_goes_with_a_proof_of_having_that() -> None:
    stage = bound()
    async with stage.proxying.carry(job(dpop=True, method="POST", query="a=1", headers=(("dpop", b"mine"),)), None):
        pass
    seen = shown(stage.sent[0])
    assert seen["authorization"] == b"DPoP t"
    said = claims(seen["dpop"])
    assert (said["htm"], said["htu"]) == ("POST", f"{BASE}/a")
    assert said["ath"] == base64.urlsafe_b64encode(hashlib.sha256(b"t").digest()).rstrip(b"=").decode()


@pytest.mark.parametrize("sizes", [(), (10,), (600_000, 448_576)])
async def test_a_server_that_wants_a_nonce_gets_the_request_once_more_with_its_body(sizes: tuple[int, ...]) -> None:
    stage = bound("n-1")
    async with stage.proxying.carry(job(dpop=True), pieces(*sizes) if sizes else None) as answered:
        assert answered.status == 200
    assert [claims(shown(each)["dpop"]).get("nonce") for each in stage.sent] == [None, "n-1"]
    assert stage.bodies == [b"x" * sum(sizes)] * 2


async def test_a_body_that_is_not_kept_is_not_sent_again_and_the_nonce_is_there_for_the_next_request() -> None:
    stage = bound("n-1")
    async with stage.proxying.carry(job(dpop=True), pieces(1_048_576, 1)) as answered:
        assert answered.status == 401
    async with stage.proxying.carry(job(dpop=True), pieces(1_048_576, 1)) as answered:
        assert answered.status == 200
    assert [len(each) for each in stage.bodies] == [1_048_577] * 2


async def test_a_401_that_says_nothing_new_of_a_nonce_is_the_answer() -> None:
    stage = bound("n-1")
    async with stage.proxying.carry(job(dpop=True), None) as answered:
        assert answered.status == 200
    stage.refuses = True
    async with stage.proxying.carry(job(dpop=True), None) as answered:
        assert answered.status == 401
    assert len(stage.sent) == 3


async def test_a_bound_token_whose_key_is_gone_is_not_sent() -> None:
    stage = Stage(RecordClass.ACCESS, BOUND)
    for known in (True, False):
        with pytest.raises(NotProxiableError):
            async with stage.proxying.carry(job(dpop=known), None):
                pass
    assert stage.sent == []


@pytest.mark.promise("P09")
async def test_a_proof_is_made_for_a_request_of_the_owners_own_and_nothing_is_sent() -> None:
    stage = bound("n-0")
    url = "https://elsewhere.example/things"
    said = claims(bytes((await stage.proxying.prove(job(dpop=True, base_urls=()), url, "n-1")).expose()))
    assert (said["htm"], said["htu"], said["nonce"]) == ("GET", url, "n-1")
    assert said["ath"] == base64.urlsafe_b64encode(hashlib.sha256(b"t").digest()).rstrip(b"=").decode()
    assert stage.sent == []


@pytest.mark.parametrize(
    ("change", "url", "nonce"),
    [
        ({}, "http://api.example/", ""),
        ({}, "https://user@api.example/", ""),
        ({}, "https://api.example/a b", ""),
        ({}, "nonsense", ""),
        ({}, "https://api.example/", 'a"b'),
        ({"method": "TRACE"}, "https://api.example/", ""),
    ],
)
async def test_a_proof_is_made_for_nothing_that_is_no_request(change: dict[str, Any], url: str, nonce: str) -> None:
    stage = bound()
    with pytest.raises(ProxyRequestError):
        await stage.proxying.prove(job(dpop=True, **change), url, nonce)
    assert stage.opened == 0, "no credential was opened for it"


async def test_a_token_that_is_bound_to_no_key_has_no_proof() -> None:
    bearer = Stage(RecordClass.ACCESS, b'{"access_token":"t","token_type":"Bearer"}')
    for known in (True, False):
        with pytest.raises(NotBoundError):
            await bearer.proxying.prove(job(dpop=known), "https://api.example/", "")


@pytest.mark.parametrize(
    ("method", "status", "lengths", "is_whole"),
    [
        ("GET", 200, [b"4"], True),
        ("POST", 404, [b"65536"], True),
        ("GET", 200, [b"65537"], False),
        ("GET", 200, [], False),
        ("GET", 200, [b"4", b"4"], False),
        ("GET", 200, [b"-4"], False),
        ("GET", 200, [b"\xb2"], False),
        ("HEAD", 200, [b"1000000"], True),
        ("GET", 304, [b"1000000"], True),
        ("DELETE", 204, [], True),
    ],
)
async def test_an_answer_is_handed_on_in_one_piece_where_it_says_that_it_is_short(
    method: str, status: int, lengths: list[bytes], is_whole: bool
) -> None:
    read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal read
        for piece in (b"so", b"me"):
            read += 1
            yield piece

    answered = Answered(status, tuple(("content-length", each) for each in lengths), pieces())
    assert await whole_of(method, answered) == (b"some" if is_whole else None)
    assert read == (2 if is_whole else 0), "of what may be long, nothing was read"


async def test_where_nothing_is_known_of_an_api_nothing_is_opened() -> None:
    stage = Stage()
    with pytest.raises(ApiUnknownError):
        async with stage.proxying.carry(job(base_urls=()), None):
            pass
    assert stage.opened == 0
