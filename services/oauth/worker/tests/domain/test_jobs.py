"""The order of a refresh: preflight, one request, seal and commit, then judge. Told with a store and a Provider handed in."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import textwrap
from collections.abc import Sequence
from typing import Any

import pytest
from authpipe_consumer.words import Opened, Sealing, Want
from authpipe_envelope import RecordClass, hosts_digest
from authpipe_oauth_worker.bodies import Bodies
from authpipe_oauth_worker.domain import jobs as jobs_module
from authpipe_oauth_worker.domain.answers import Answer
from authpipe_oauth_worker.domain.jobs import Endpoints, Job, Jobs
from authpipe_oauth_worker.errors import EgressError, HostError
from authpipe_rpc import PeerRefused, PeerUnavailable
from authpipe_sensitive import DomainError, Secret, Status

HOSTS = frozenset({"as.example"})
JOB = Job(
    workspace="ws",
    connection="con",
    config="pc",
    provider="as.example",
    endpoints=Endpoints("https://as.example/token", "https://as.example/revoke", "client_secret_basic", HOSTS),
    client_id="client",
    client_grant="g1",
    credential_grant="g2",
    fence=1,
    request_id="r",
    scopes=("a",),
)
GOOD = {"access_token": "new-access", "token_type": "Bearer", "expires_in": 60, "refresh_token": "new-refresh"}


class Store:
    """A store and what happened, in order."""

    def __init__(self, story: list[str], records: dict[RecordClass, bytes], hosts: bytes | None = None) -> None:
        self.story, self.records = story, records
        self.hosts = hosts or hosts_digest(HOSTS)
        self.away_at = ""

    async def open(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        self._step("open")
        found: list[Opened | DomainError] = []
        for want in wants:
            assert want.record_class is not None
            data = self.records.get(want.record_class)
            if data is None:
                found.append(PeerRefused("RECORD_NOT_FOUND", Status.NOT_FOUND))
            else:
                found.append(Opened(Secret(data), want.record_class, 1, "as.example", self.hosts, None, "sk_…"))
        return found

    async def prepare(self, *_: Any) -> dict[RecordClass, RecordClass]:
        self._step("prepare")
        return {each: each for each in RecordClass}

    def seal(self, key: RecordClass, _: Sealing, plaintext: Secret) -> tuple[RecordClass, bytes]:
        self.story.append(f"seal {key.name}")
        return key, bytes(plaintext.expose())

    async def put(self, records: Sequence[tuple[RecordClass, bytes]], consumed: Sequence[Any], *_: Any) -> None:
        self._step("put " + "+".join(each.name for each, _ in records))
        self.records.update(dict(records))
        for _, _, record_class in consumed:
            self.records.pop(record_class, None)

    def _step(self, name: str) -> None:
        self.story.append(name)
        if name == self.away_at:
            raise PeerUnavailable


class Provider:
    """A Provider that counts."""

    def __init__(self, story: list[str], answer: Answer | DomainError) -> None:
        self.story, self.answer, self.forms = story, answer, list[dict[str, Any]]()

    async def post_form(self, _: str, form: dict[str, Any], *__: Any) -> Answer:
        self.story.append("PROVIDER")
        self.forms.append({key: bytes(v.expose()).decode() if isinstance(v, Secret) else v for key, v in form.items()})
        if isinstance(self.answer, DomainError):
            raise self.answer
        return self.answer


def stage(answer: Any = GOOD, status: int = 200, **records: bytes) -> tuple[Jobs, Store, Provider, list[str]]:
    story: list[str] = []
    kept = {RecordClass.REFRESH: b"old-refresh", **{RecordClass[name]: value for name, value in records.items()}}
    vault = Store(story, kept)
    secrets = Store(story, {RecordClass.CLIENT_SECRET: b"client-secret"})
    reply = answer if isinstance(answer, DomainError) else Answer(status, Secret(json.dumps(answer).encode()), 0)
    provider = Provider(story, reply)
    clock = lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC)  # noqa: E731
    return Jobs(vault, secrets, provider, Bodies(), clock, lambda size: bytes(size)), vault, provider, story  # type: ignore[arg-type]


@pytest.mark.promise("P36")
async def test_the_answer_is_sealed_and_stored_before_it_is_judged() -> None:
    jobs, vault, _, story = stage()
    outcome = await jobs.refresh(JOB)
    assert story == [
        "open", "open", "open", "prepare", "PROVIDER",
        "seal ANSWER", "put ANSWER", "seal ACCESS", "seal REFRESH", "put ACCESS+REFRESH",
    ]  # fmt: skip
    assert outcome.failure == ""
    assert vault.records[RecordClass.REFRESH] == b"new-refresh"
    assert RecordClass.ANSWER not in vault.records


@pytest.mark.case(24)
@pytest.mark.parametrize("step", ["open", "prepare"])
async def test_whatever_is_away_before_the_call_the_provider_sees_none(step: str) -> None:
    jobs, vault, provider, _ = stage()
    vault.away_at = step
    with pytest.raises(PeerUnavailable):
        await jobs.refresh(JOB)
    assert provider.forms == []
    assert vault.records[RecordClass.REFRESH] == b"old-refresh"


@pytest.mark.case(24)
async def test_the_attack_sees_a_refresh_that_asks_for_write_keys_only_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = textwrap.dedent(inspect.getsource(Jobs.refresh))
    early = "    keys = await self._prepare(job)\n"
    late = "    return await self._keep(job, answer, keys, [])\n"
    assert source.count(early) == source.count(late) == 1, "the control is not written like this any more"
    namespace = dict(vars(jobs_module))
    exec(source.replace(early, "    keys = {}\n").replace(late, early + late), namespace)  # our own source, changed
    monkeypatch.setattr(Jobs, "refresh", namespace["refresh"])
    with pytest.raises(AssertionError):
        await test_whatever_is_away_before_the_call_the_provider_sees_none("prepare")


@pytest.mark.promise("P36")
async def test_an_answer_stored_before_a_crash_is_judged_and_the_token_is_not_spent_again() -> None:
    jobs, vault, provider, _ = stage()
    vault.away_at = "put ACCESS+REFRESH"
    with pytest.raises(PeerUnavailable):
        await jobs.refresh(JOB)
    assert RecordClass.ANSWER in vault.records
    vault.away_at = ""
    assert (await jobs.refresh(JOB)).failure == ""
    assert len(provider.forms) == 1
    assert vault.records[RecordClass.REFRESH] == b"new-refresh"


@pytest.mark.parametrize("kept", [None, ""])
async def test_without_a_new_refresh_token_the_old_one_stays(kept: object) -> None:
    jobs, vault, _, _ = stage({**GOOD, "refresh_token": kept})
    outcome = await jobs.refresh(JOB)
    assert outcome.refreshable
    assert vault.records[RecordClass.REFRESH] == b"old-refresh"
    assert json.loads(vault.records[RecordClass.ACCESS])["scopes"] == ["a"]


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ({"error": "invalid_grant"}, 400, "INVALID_GRANT"),
        ({}, 500, "PROVIDER_UNAVAILABLE"),
        ({**GOOD, "token_type": "mac"}, 200, "TOKEN_TYPE_UNKNOWN"),
    ],
)
async def test_a_bad_answer_changes_nothing_that_is_stored(answer: Any, status: int, reason: str) -> None:
    jobs, vault, _, _ = stage(answer, status)
    assert (await jobs.refresh(JOB)).failure == reason
    assert vault.records == {RecordClass.REFRESH: b"old-refresh"}


async def test_a_provider_that_is_not_reached_is_a_word_of_the_list() -> None:
    jobs, vault, _, _ = stage(EgressError())
    assert (await jobs.refresh(JOB)).failure == "PROVIDER_UNREACHABLE"
    assert vault.records == {RecordClass.REFRESH: b"old-refresh"}


@pytest.mark.case(18)
async def test_a_credential_is_not_sent_to_hosts_that_it_is_not_bound_to() -> None:
    """coordinator's database says another token endpoint now; the sealed record does not."""
    jobs, vault, provider, _ = stage()
    vault.hosts = hosts_digest({"evil.example"})
    with pytest.raises(HostError):
        await jobs.refresh(JOB)
    assert provider.forms == []


@pytest.mark.promise("P13")
async def test_the_verifier_goes_with_the_code_and_is_used_up() -> None:
    jobs, vault, provider, _ = stage(CODE_VERIFIER=b"the-verifier")
    assert (await jobs.exchange_code(JOB, "the-code", "https://x.example/cb")).failure == ""
    assert provider.forms[0]["code_verifier"] == "the-verifier"
    assert RecordClass.CODE_VERIFIER not in vault.records


@pytest.mark.promise("P11")
async def test_revocation_sends_both_tokens_the_refresh_token_first() -> None:
    jobs, _, provider, _ = stage(ACCESS=b'{"access_token":"the-access"}')
    assert await jobs.revoke(JOB) is None
    assert [form["token"] for form in provider.forms] == ["old-refresh", "the-access"]
