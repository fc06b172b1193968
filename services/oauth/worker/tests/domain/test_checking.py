"""What a Provider's answer says of a credential, and what it says of the Provider alone."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import pytest
from authpipe_consumer.payloads import access_payload
from authpipe_consumer.words import Opened, Want
from authpipe_envelope import RecordClass, hosts_digest
from authpipe_oauth_worker.domain.nonces import Nonces
from authpipe_oauth_worker.proofs import Proofs
from authpipe_oauth_worker.bodies import Bodies
from authpipe_oauth_worker.domain.answers import Answer
from authpipe_oauth_worker.domain.proxying import Ways
from authpipe_oauth_worker.domain.checking import Check, Checked, Checking
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.words import Endpoints, Job
from authpipe_oauth_worker.errors import AnswerLostError, EgressError, HostError, NotCheckableError
from authpipe_oauth_worker.placing import place
from authpipe_providers import Placement
from authpipe_sensitive import DomainError, Label, Secret

HOSTS = frozenset({"as.example", "api.example"})
HARMLESS, ROTATION = "https://api.example/me", "https://api.example/key"
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Store:
    """A store with one of each."""

    def __init__(self, hosts: frozenset[str] = HOSTS) -> None:
        self.hosts = hosts

    async def open(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        plain = {
            RecordClass.ACCESS: access_payload(Secret(b"the-access"), ["a"], None),
            RecordClass.API_KEY: Secret(b"the-key"),
            RecordClass.CLIENT_SECRET: Secret(b"the-client-secret"),
        }
        return [
            Opened(plain[w.record_class], w.record_class, 1, "as.example", hosts_digest(self.hosts), None, "…", 0)
            for w in wants
            if w.record_class is not None
        ]


class Provider:
    """Answers as a test says, and remembers what came."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    async def send(self, method: str, url: str, headers: dict[str, Any], *_: Any, **__: Any) -> Answer:
        shown = {name: bytes(v.expose()).decode() if isinstance(v, Secret) else v for name, v in headers.items()}
        self.seen.append((method, url, shown))
        return self._answer("rotation" if url == ROTATION else "harmless")

    async def post_form(self, url: str, form: dict[str, Any], *_: Any, **__: Any) -> Answer:
        shown = {name: bytes(v.expose()).decode() if isinstance(v, Secret) else v for name, v in form.items()}
        self.seen.append(("POST", url, shown))
        return self._answer("introspection")

    def _answer(self, name: str) -> Answer:
        answer = self.answers[name]
        if isinstance(answer, DomainError):
            raise answer
        status, said = answer
        return Answer(status, Secret(json.dumps(said).encode()), 0)


def job(**endpoints: Any) -> Job:
    return Job(
        workspace="ws",
        connection="con",
        config="pc",
        provider="as.example",
        endpoints=Endpoints("https://as.example/token", "", "client_secret_basic", HOSTS, **endpoints),
        client_id="client",
        client_grant="g1",
        credential_grant="g2",
        fence=0,
        request_id="r",
        scopes=(),
    )


def how(url: str = HARMLESS, rotation: str = "") -> Check:
    key = Placement("header", "X-Api-Key", "")
    return Check("GET", url, (("X-Version", "2"),), Ways(Placement(), key), rotation, "/key/ends" if rotation else "")


async def check(
    provider: Provider, record_class: RecordClass, asked: Check, *, store: Any = None, **more: Any
) -> Checked:
    desk = Desk(store or Store(), Store(), provider, Bodies(), lambda: NOW, Proofs(), Nonces())  # type: ignore[arg-type]
    return await Checking(desk, place).check(job(**more), record_class, asked)


@pytest.mark.parametrize(
    ("answer", "checked"),
    [
        ((200, {}), Checked()),
        ((204, {}), Checked()),
        ((200, {"ok": True}), Checked()),
        ((401, {}), Checked("CREDENTIAL_REFUSED", refused=True)),
        ((200, {"ok": False, "error": "invalid_auth"}), Checked("CREDENTIAL_REFUSED", refused=True)),
        ((200, {"ok": False, "error": "whatever"}), Checked("PROVIDER_REFUSED")),
        ((403, {}), Checked("PROVIDER_REFUSED")),
        ((404, {}), Checked("ENDPOINT_GONE")),
        ((429, {}), Checked("PROVIDER_SLOW_DOWN")),
        ((503, {}), Checked("PROVIDER_UNAVAILABLE")),
        (EgressError(cause=Label("CONNECTION_FAILED")), Checked("CONNECTION_FAILED")),
        (AnswerLostError(cause=Label("TIMEOUT")), Checked("TIMEOUT")),
    ],
    ids=str,
)
async def test_only_a_no_to_the_credential_counts_against_it(answer: Any, checked: Checked) -> None:
    provider = Provider(harmless=answer)
    assert await check(provider, RecordClass.ACCESS, how()) == checked
    assert provider.seen == [("GET", HARMLESS, {"x-version": "2", "authorization": "Bearer the-access"})]


@pytest.mark.parametrize(
    ("answer", "checked"),
    [
        ((200, {"active": True}), Checked()),
        ((200, {"active": False}), Checked("CREDENTIAL_REFUSED", refused=True)),
        ((200, {"active": "no"}), Checked("PROVIDER_REFUSED")),
        ((401, {"error": "invalid_client"}), Checked("PROVIDER_REFUSED")),
    ],
    ids=str,
)
async def test_where_no_harmless_request_is_known_a_token_is_introspected(answer: Any, checked: Checked) -> None:
    provider = Provider(introspection=answer)
    url = "https://as.example/introspect"
    known = {"introspection": url, "userinfo": "https://as.example/me"}
    assert await check(provider, RecordClass.ACCESS, how(""), **known) == checked
    assert provider.seen == [("POST", url, {"token": "the-access", "token_type_hint": "access_token"})]


async def test_else_it_is_tried_at_userinfo_and_else_nobody_can() -> None:
    provider = Provider(harmless=(200, {"sub": "ada"}))
    assert await check(provider, RecordClass.ACCESS, how(""), userinfo="https://as.example/me") == Checked()
    assert provider.seen[0][1] == "https://as.example/me"
    with pytest.raises(NotCheckableError):
        await check(provider, RecordClass.ACCESS, how(""))
    with pytest.raises(NotCheckableError):
        await check(provider, RecordClass.API_KEY, how(""), userinfo="https://as.example/me")


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        ((200, {"key": {"ends": "2026-03-01T10:00:00Z"}}), dt.datetime(2026, 3, 1, 10, tzinfo=dt.UTC)),
        ((200, {"key": {"ends": "2026-03-01"}}), dt.datetime(2026, 3, 1, tzinfo=dt.UTC)),
        ((200, {"key": {"ends": None}}), None),
        ((200, {"key": {"ends": "soon"}}), None),
        ((200, {"key": {"ends": 1772359200}}), None),
        ((403, {"key": {"ends": "2026-03-01"}}), None),
    ],
    ids=str,
)
async def test_when_a_key_ends_is_read_where_the_provider_says_it(answer: Any, ends: dt.datetime | None) -> None:
    provider = Provider(harmless=(200, {}), rotation=answer)
    assert await check(provider, RecordClass.API_KEY, how(rotation=ROTATION)) == Checked(rotate_at=ends)
    assert [headers["x-api-key"] for _, _, headers in provider.seen] == ["the-key", "the-key"]


@pytest.mark.case(22)
async def test_a_credential_is_not_tried_at_hosts_that_it_is_not_bound_to() -> None:
    provider = Provider(harmless=(200, {}))
    with pytest.raises(HostError):
        await check(provider, RecordClass.API_KEY, how(), store=Store(frozenset({"evil.example"})))
    assert provider.seen == []
