"""Every file of the catalog, run through the real way out against a Provider that behaves as the file says (promise P37).

The Provider is scripted from the entry's document alone: it refuses a request at another host or path, with another client
authentication, another body, or without the parameters that the file promises, and answers where the file says. Between
them lies everything real: what coordinator pins and sends, what the worker makes of it, TLS 1.3 to the Provider's own name.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime as dt
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from authpipe.oauth.v1 import worker_pb2
from authpipe_consumer.words import Opened, SealedWrite, Sealing, Want
from authpipe_envelope import RecordClass, hosts_digest
from authpipe_grants import ConsumerKey
from authpipe_oauth_coordinator.peers import to_wire_dialect, to_wire_endpoints, to_wire_values
from authpipe_oauth_worker.domain.nonces import Nonces
from authpipe_oauth_worker.proofs import Proofs
from authpipe_oauth_worker.signing import sign_oauth1
from authpipe_oauth_worker.asking import ask
from authpipe_oauth_worker.bodies import Bodies
from authpipe_oauth_worker.domain.jobs import Jobs
from authpipe_oauth_worker.domain.words import Outcome, Renewal
from authpipe_oauth_worker.connecting import Guarded
from authpipe_oauth_worker.egress import Egress
from authpipe_oauth_worker.errors import HostError
from authpipe_oauth_worker.requests import token_request
from authpipe_oauth_worker.servicer import WorkerServicer
from authpipe_oauth_worker.spool import Spool
from authpipe_providers import Entry, client_hosts, connection_hosts, fill, load_catalog, urls
from authpipe_rpc import PeerRefused
from authpipe_sensitive import DomainError, Secret, Status
from authpipe_testing.ca import CertificateAuthority

ENTRIES = [entry for entry in load_catalog().values() if entry.endpoints is not None]
BY_CODE = "authorization_code"
CLIENT, SECRET = "the-client", "the-secret-of-the-client"
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Scripted:
    """A Provider that does what a document says, and refuses everything else."""

    def __init__(self, document: Mapping[str, Any], values: Mapping[str, str]) -> None:
        self.said = document["oauth2"]
        self.values = values
        self.seen: list[str] = []
        self.wrong: list[str] = []

    def at(self, name: str) -> str:
        url = str(self.said.get(name, ""))
        for key, value in (self.values | {"client_id": CLIENT}).items():
            url = url.replace(f"{{{key}}}", value)
        return url

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        own = self.said.get("revocation")
        token_urls = {self.at("token_endpoint"), self.at("refresh_endpoint") or self.at("token_endpoint")}
        if own and url == Scripted({"oauth2": {"url": own["url"]}}, self.values).at("url") and method == own["method"]:
            return self.revoke_its_own_way(own, headers, body)
        if method == "POST" and url == self.at("revocation_endpoint"):
            return self.revoke(headers, dict(parse_qsl(body.decode())))
        if method == "POST" and url in token_urls:
            return self.token(url, headers, body)
        self.wrong.append(f"{method} {url}")
        return 404, {}

    def token(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        as_json = self.said.get("body") == "json"
        wanted = "application/json" if as_json else "application/x-www-form-urlencoded"
        if headers.get("content-type") != wanted:
            self.wrong.append(f"content-type {headers.get('content-type')}")
        form = json.loads(body) if as_json else dict(parse_qsl(body.decode(), keep_blank_values=True))
        if not self.knows(self.said["client_authentication"][0], headers, form):
            return 401, {"error": "invalid_client"}
        grant = form.get("grant_type")
        self.seen.append(str(grant))
        if grant == "client_credentials":
            return 200, self.tokens(2)
        if grant == "authorization_code":
            promised, right = self.said.get("token_parameters", {}), form.get("code") == "the-code"
            right = right and url == self.at("token_endpoint") and bool(form.get("code_verifier"))
        else:
            promised, right = self.said.get("refresh_parameters", {}), form.get("refresh_token") == "refresh-1"
            right = right and url == (self.at("refresh_endpoint") or self.at("token_endpoint"))
        if not promised.items() <= form.items():
            self.wrong.append(f"parameters {sorted(form)}")
        return (200, self.tokens(2 if grant == "refresh_token" else 1)) if right else (400, {"error": "invalid_grant"})

    def tokens(self, number: int) -> dict[str, Any]:
        at = self.said.get("answer", {})
        made: dict[str, Any] = {}
        put(made, at.get("access_token", "/access_token"), f"access-{number}")
        put(made, at.get("refresh_token", "/refresh_token"), f"refresh-{number}")
        put(made, at.get("scope", "/scope"), self.said.get("scope_separator", " ").join(("one", "two")))
        if "life_seconds" not in self.said:
            put(made, at.get("expires_in", "/expires_in"), 3600)
        for name, pointer in self.said.get("metadata", {}).items():
            put(made, pointer, f"kept {name}")
        if not at.get("token_type_absent"):
            made["token_type"] = "bearer"
        return made

    def knows(self, method: str, headers: Mapping[str, str], form: Mapping[str, str]) -> bool:
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        match method:
            case "client_secret_basic":
                return headers.get("authorization") == f"Basic {basic}"
            case "client_secret_post":
                return (form.get("client_id"), form.get("client_secret")) == (CLIENT, SECRET)
            case _:
                return form.get("client_id") == CLIENT

    def revoke(self, headers: Mapping[str, str], form: Mapping[str, str]) -> tuple[int, Any]:
        if not self.knows(self.said["client_authentication"][0], headers, form):
            return 401, {"error": "invalid_client"}
        self.seen.append(f"revoked {form.get('token')}")
        return 200, {}

    def revoke_its_own_way(self, own: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        form = {} if not body else json.loads(body) if own["token_in"] == "json" else dict(parse_qsl(body.decode()))
        token = form.get(own.get("name", "token"), "")
        if own["token_in"] == "bearer":
            token = headers.get("authorization", "").removeprefix("Bearer ")
        if own.get("client") == "basic" and headers.get("authorization") != f"Basic {basic}":
            self.wrong.append("not authenticated by basic")
        if own.get("client") == "post" and form.get("client_secret") != SECRET:
            self.wrong.append("not authenticated by post")
        self.seen.append(f"revoked {token}")
        return 200, {"ok": True}


def put(made: dict[str, Any], pointer: str, value: object) -> None:
    *path, last = pointer.split("/")[1:]
    for name in path:
        made = made.setdefault(name, {})
    made[last] = value


class Records:
    """A store in memory; what it is for is tested elsewhere."""

    def __init__(self, provider: str, hosts: bytes, records: dict[RecordClass, bytes]) -> None:
        self.provider, self.hosts, self.records = provider, hosts, records

    async def open(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        return [self._one(want) for want in wants]

    def _one(self, want: Want) -> Opened | DomainError:
        data = self.records.get(want.record_class) if want.record_class is not None else None
        if data is None or want.record_class is None:
            return PeerRefused("RECORD_NOT_FOUND", Status.NOT_FOUND)
        return Opened(Secret(data), want.record_class, 1, self.provider, self.hosts, None, "…", 0)

    async def prepare(self, *_: Any) -> dict[RecordClass, RecordClass]:
        return {each: each for each in RecordClass}

    def seal(self, key: RecordClass, sealing: Sealing, plaintext: Secret) -> SealedWrite:
        assert sealing.hosts == self.hosts, "sealed for the hosts of this connection"
        return (key, bytes(plaintext.expose()))  # type: ignore[return-value]

    def pack(self, record: Any) -> bytes:
        return bytes(record[1])

    async def put(self, records: Any, consumed: Any, *_: Any) -> None:
        self.records.update(dict(records))
        for _, _, record_class in consumed:
            self.records.pop(record_class, None)


class Scene:
    """One Provider of the catalog, and one job at it."""

    def __init__(self, entry: Entry, egress: Egress, values: dict[str, str]) -> None:
        assert entry.endpoints is not None
        own_hosts = hosts_digest(connection_hosts(urls(entry), values, entry.values))
        their_hosts = hosts_digest(client_hosts(urls(entry), entry.values))
        self.vault = Records(entry.name, own_hosts, {RecordClass.CODE_VERIFIER: b"v" * 43})
        self.secrets = Records(entry.name, their_hosts, {RecordClass.CLIENT_SECRET: SECRET.encode()})
        spool = Spool(Path(tempfile.mkdtemp()) / "spool", most=2)
        spool.open()
        self.jobs = Jobs(
            self.vault, self.secrets, egress, Bodies(), spool, ask, sign_oauth1, Proofs(), Nonces(), lambda: NOW, bytes
        )  # type: ignore[arg-type]
        key = ConsumerKey()
        servicer = WorkerServicer(self.jobs, None, None, None, None, None, key)  # type: ignore[arg-type]
        wire = worker_pb2.Job(
            workspace_id="ws",
            connection_id="con",
            provider_config_id="pc",
            provider=entry.name,
            client_id=CLIENT,
            client_grant="g",
            credential_grant="g",
            consumer_thumbprint=key.thumbprint,
            spend=True,
            fence=1,
            values=to_wire_values(entry, tuple(values.items())),
            endpoints=to_wire_endpoints(entry.endpoints),
            dialect=to_wire_dialect(entry),
        )
        self.job = servicer._job(wire)  # noqa: SLF001  # what the wire makes of it is what is tested


@pytest.fixture
async def provider(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Scripted, Egress, dict[str, str]]]:
    values = {rule.name: rule.example for rule in entry.values}
    scripted = Scripted(entry.document, values)
    hosts = sorted(connection_hosts(urls(entry), values, entry.values))
    ca = CertificateAuthority(tmp_path, "provider-ca")
    leaf = ca.issue(tmp_path, "provider", common_name="x", dns=tuple(hosts))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status, said = scripted.answer(method, f"https://{headers['host']}{path}", headers, body)
                data = json.dumps(said).encode()
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    connect = Guarded.connect_tcp

    async def to_loopback(self: Any, **asked: Any) -> Any:
        return await connect(self, **asked | {"port": port})

    monkeypatch.setattr(Guarded, "connect_tcp", to_loopback)

    async def resolve(host: str, _: int) -> list[str]:
        return ["127.0.0.1"] if host in hosts else []

    egress = Egress(ca.certificate_file, 5.0, allow_loopback=True, write=token_request, resolve=resolve)
    async with server:
        yield scripted, egress, values
        await egress.close()


@pytest.mark.promise("P30")
@pytest.mark.promise("P37")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
async def test_a_provider_is_spoken_to_as_its_file_says(
    entry: Entry, provider: tuple[Scripted, Egress, dict[str, str]]
) -> None:
    scripted, egress, values = provider
    scene = Scene(entry, egress, values)
    # A code is exchanged, or a token is asked for as the client.
    if BY_CODE not in entry.grants:
        scene.vault.records[RecordClass.REFRESH] = b"{}"
        scene.job = dataclasses.replace(scene.job, renewal=Renewal.CLIENT_CREDENTIALS)
        outcome = await scene.jobs.refresh(scene.job)
        assert (outcome.failure, scripted.wrong, scripted.seen) == ("", [], ["client_credentials"])
        assert json.loads(scene.vault.records[RecordClass.ACCESS])["access_token"] == "access-2"
        return
    outcome = await scene.jobs.exchange_code(scene.job, "the-code", "https://app.example/callback")
    assert (outcome.failure, scripted.wrong) == ("", [])
    assert outcome.scopes == ("one", "two")
    life = entry.dialect.life_seconds or 3600
    assert outcome.expires_at == NOW + dt.timedelta(seconds=life)
    assert dict(outcome.metadata) == {name: f"kept {name}" for name, _ in entry.dialect.metadata}
    assert json.loads(scene.vault.records[RecordClass.ACCESS])["access_token"] == "access-1"
    # It is refreshed.
    outcome = await scene.jobs.refresh(scene.job)
    assert (outcome.failure, scripted.wrong) == ("", [])
    assert scene.vault.records[RecordClass.REFRESH] == b"refresh-2"
    # And revoked, where there is a way to.
    assert await scene.jobs.revoke(scene.job) is None
    assert scripted.wrong == []
    own = entry.dialect.revocation
    taken = own.tokens if own is not None else ("refresh_token", "access_token")
    can = bool(entry.endpoints and entry.endpoints.revocation_endpoint) or entry.dialect.revocation is not None
    assert [each for each in scripted.seen if each.startswith("revoked")] == (
        [f"revoked {each.removesuffix('_token')}-2" for each in taken] if can else []
    )


@pytest.mark.promise("P37")
@pytest.mark.case(22)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
async def test_nothing_is_sent_for_another_set_of_hosts_than_the_file_names(
    entry: Entry, provider: tuple[Scripted, Egress, dict[str, str]]
) -> None:
    scripted, egress, values = provider
    scene = Scene(entry, egress, values)
    scene.secrets.hosts = hosts_digest({"elsewhere.example"})
    if BY_CODE in entry.grants:
        with pytest.raises(HostError):
            await scene.jobs.exchange_code(scene.job, "the-code", "https://app.example/callback")
    else:
        scene.vault.records[RecordClass.REFRESH] = b"{}"
        job = dataclasses.replace(scene.job, renewal=Renewal.CLIENT_CREDENTIALS)
        assert await scene.jobs.refresh(job) == Outcome(HostError.reason, nothing_sent=True)
    assert scripted.seen == []


@pytest.mark.promise("P13")
@pytest.mark.promise("P30")
@pytest.mark.parametrize("entry", [each for each in ENTRIES if BY_CODE in each.grants], ids=lambda entry: entry.name)
def test_no_file_turns_pkce_or_state_off_and_every_browser_goes_to_the_providers_own_name(entry: Entry) -> None:
    assert entry.endpoints is not None
    fixed = {name for name, _ in entry.dialect.authorization_parameters}
    assert not fixed & {
        "state",
        "code_challenge",
        "code_challenge_method",
        "redirect_uri",
        "client_id",
        "response_type",
    }
    url = urlsplit(
        fill(entry.endpoints.authorization_endpoint, {r.name: r.example for r in entry.values}, entry.values)
    )
    assert url.scheme == "https"
    assert url.hostname
