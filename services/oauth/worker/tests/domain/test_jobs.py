"""The order of a refresh: preflight, one request, seal and commit, then judge. Told with a store and a Provider handed in."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime as dt
import errno
import inspect
import json
import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from authpipe.oauth.v1 import worker_pb2
from authpipe_consumer.words import Opened, Sealing, Want
from authpipe_envelope import RecordClass, hosts_digest
from authpipe_grants import ConsumerKey
from authpipe_oauth_worker.domain.nonces import Nonces
from authpipe_oauth_worker.proofs import Proofs
from authpipe_oauth_worker.signing import sign_oauth1
from authpipe_oauth_worker.asking import ask
from authpipe_oauth_worker.bodies import Bodies
from authpipe_oauth_worker.domain import refresh as refresh_module
from authpipe_oauth_worker.domain.answers import Answer
from authpipe_oauth_worker.domain.jobs import Jobs
from authpipe_oauth_worker.domain.words import Endpoints, Job, Outcome
from authpipe_oauth_worker.errors import AnswerLostError, EgressError, HostError
from authpipe_oauth_worker.servicer import WorkerServicer
from authpipe_oauth_worker.spool import Spool
from authpipe_rpc import PeerRefused, PeerUnavailable
from authpipe_sensitive import DomainError, Label, Secret, Status

HOSTS = frozenset({"as.example"})
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
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
BOUND = dataclasses.replace(JOB, endpoints=dataclasses.replace(JOB.endpoints, dpop=True))
WANTS_NONCE = Answer(400, Secret(b'{"error":"use_dpop_nonce"}'), 0)
GOOD = {"access_token": "new-access", "token_type": "Bearer", "expires_in": 60, "refresh_token": "new-refresh"}


class Key(NamedTuple):
    """A write key of a store that seals nothing."""

    record_class: RecordClass
    version: int


class Store:
    """A store and what happened, in order."""

    def __init__(self, story: list[str], records: dict[RecordClass, bytes], hosts: bytes | None = None) -> None:
        self.story, self.records = story, records
        self.hosts = hosts or hosts_digest(HOSTS)
        self.away_at = ""
        self.versions: dict[RecordClass, int] = {}
        self.fence = 0
        self.ends: dt.datetime | None = None

    async def open(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        self._step("open")
        found: list[Opened | DomainError] = []
        for want in wants:
            assert want.record_class is not None
            data = self.records.get(want.record_class)
            if data is None:
                found.append(PeerRefused("RECORD_NOT_FOUND", Status.NOT_FOUND))
            else:
                found.append(
                    Opened(
                        Secret(data),
                        want.record_class,
                        self.versions.get(want.record_class, 1),
                        "as.example",
                        self.hosts,
                        self.ends,
                        "sk_…",
                        self.fence,
                    )
                )
        return found

    async def prepare(self, *_: Any) -> dict[RecordClass, Key]:
        self._step("prepare")
        return {each: Key(each, self.versions.get(each, 1) + 1) for each in RecordClass}

    def seal(self, key: Key, sealing: Sealing, plaintext: Secret) -> tuple[RecordClass, bytes]:
        if key.record_class in {RecordClass.ACCESS, RecordClass.REFRESH}:
            assert sealing.expires_at == NOW + dt.timedelta(seconds=60), "both say when the access token ends"
        self.story.append(f"seal {key.record_class.name}")
        return key.record_class, bytes(plaintext.expose())

    def pack(self, write: tuple[RecordClass, bytes]) -> bytes:
        return f"sealed {write[0].name}".encode()

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
        self.proofs: list[Secret | None] = []
        self.wants: Callable[[Secret | None], str] | None = None
        self.folder = Path(tempfile.mkdtemp()) / "spool"

    async def post_form(self, _: str, form: dict[str, Any], *__: Any, **more: Any) -> Answer:
        self.story.append("PROVIDER")
        self.proofs.append(more.get("proof"))
        self.forms.append({key: bytes(v.expose()).decode() if isinstance(v, Secret) else v for key, v in form.items()})
        if isinstance(self.answer, DomainError):
            raise self.answer
        wants = "" if self.wants is None else self.wants(self.proofs[-1])
        return dataclasses.replace(WANTS_NONCE, dpop_nonce=wants) if wants else self.answer


def stage(answer: Any = GOOD, status: int = 200, **records: bytes) -> tuple[Jobs, Store, Provider, list[str]]:
    story: list[str] = []
    kept = {RecordClass.REFRESH: b"old-refresh", **{RecordClass[name]: value for name, value in records.items()}}
    vault = Store(story, kept)
    secrets = Store(story, {RecordClass.CLIENT_SECRET: b"client-secret"})
    reply = answer if isinstance(answer, DomainError) else Answer(status, Secret(json.dumps(answer).encode()), 0)
    provider = Provider(story, reply)
    clock = lambda: NOW  # noqa: E731
    spool = Spool(provider.folder, most=2)
    spool.open()
    jobs = Jobs(
        vault, secrets, provider, Bodies(), spool, ask, sign_oauth1, Proofs(), Nonces(), clock, lambda size: bytes(size)
    )  # type: ignore[arg-type]
    return jobs, vault, provider, story


@pytest.mark.promise("P36")
async def test_the_answer_is_sealed_and_stored_before_it_is_judged() -> None:
    jobs, vault, _, story = stage()
    outcome = await jobs.refresh(JOB)
    assert story == [
        "open", "prepare", "open", "PROVIDER",
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
    try:
        outcome = await jobs.refresh(JOB)
    except DomainError:
        outcome = Outcome("")
    assert provider.forms == []
    assert (outcome.failure, outcome.nothing_sent) == ("DEPENDENCY_UNAVAILABLE", True)
    assert vault.records[RecordClass.REFRESH] == b"old-refresh"


@pytest.mark.case(24)
async def test_the_attack_sees_a_refresh_that_asks_for_write_keys_only_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = textwrap.dedent(inspect.getsource(refresh_module.Refresh.refresh))
    early = "keys = await self._desk.prepare(job)\n"
    late = "# Step 4: seal, keep, commit, then judge.\n"
    assert source.count(early) == source.count(late) == 1, "the control is not written like this any more"
    namespace = dict(vars(refresh_module))
    exec(source.replace(early, "keys = {}\n").replace(late, early), namespace)  # our own source, changed
    monkeypatch.setattr(refresh_module.Refresh, "refresh", namespace["refresh"])
    with pytest.raises(AssertionError):
        await test_whatever_is_away_before_the_call_the_provider_sees_none("prepare")


@pytest.mark.promise("P36")
async def test_an_answer_stored_before_a_crash_is_judged_and_the_token_is_not_spent_again() -> None:
    jobs, vault, provider, _ = stage()
    vault.away_at = "put ACCESS+REFRESH"
    assert (await jobs.refresh(JOB)).failure == "ANSWER_STORED"
    assert RecordClass.ANSWER in vault.records
    vault.away_at = ""
    assert (await jobs.refresh(dataclasses.replace(JOB, spend=False))).failure == ""
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
    outcome = await jobs.refresh(JOB)
    assert (outcome.failure, outcome.nothing_sent) == (HostError.reason, True)
    assert provider.forms == []


@pytest.mark.promise("P07")
async def test_what_was_opened_for_a_refresh_that_does_not_begin_is_not_left_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs, vault, _, _ = stage(ANSWER=b"an-answer")
    vault.hosts = hosts_digest({"evil.example"})
    given: list[Opened | DomainError] = []

    async def keeping(wants: Sequence[Want]) -> list[Opened | DomainError]:
        given.extend(await Store.open(vault, wants))
        return list(given)

    monkeypatch.setattr(vault, "open", keeping)
    await jobs.refresh(JOB)
    assert {each.record_class for each in given if isinstance(each, Opened)} == {
        RecordClass.ANSWER,
        RecordClass.REFRESH,
    }
    assert not any(each.plaintext for each in given if isinstance(each, Opened)), "both are overwritten"


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


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_an_answer_that_vault_cannot_take_waits_sealed_on_the_disk() -> None:
    jobs, vault, provider, _ = stage()
    vault.away_at = "put ANSWER"
    assert await jobs.refresh(JOB) == Outcome("ANSWER_SPOOLED")
    kept = Spool(provider.folder).waiting()
    assert [each.packed for each in kept] == [b"sealed ANSWER"]
    assert vault.records == {RecordClass.REFRESH: b"old-refresh"}


@pytest.mark.promise("P36")
async def test_what_vault_took_leaves_nothing_on_the_disk() -> None:
    jobs, _, provider, _ = stage()
    await jobs.refresh(JOB)
    assert [each.read_bytes() for each in provider.folder.iterdir()] == [b""]


@pytest.mark.promise("P36")
@pytest.mark.case(24)
async def test_without_a_disk_that_takes_the_answer_the_provider_sees_no_call() -> None:
    jobs, vault, provider, _ = stage()
    vault.away_at = "put ANSWER"
    for _ in range(2):
        await jobs.refresh(JOB)
    outcome = await jobs.refresh(JOB)
    assert (outcome.failure, outcome.nothing_sent) == ("SPOOL_UNAVAILABLE", True), "two wait, which is all it takes"
    shutil.rmtree(provider.folder)
    assert (await jobs.refresh(JOB)).nothing_sent
    assert len(provider.forms) == 2


@pytest.mark.promise("P36")
@pytest.mark.parametrize(("away_at", "failure"), [("", ""), ("put ANSWER", "PROVIDER_ANSWER_LOST")])
async def test_a_disk_that_fills_up_just_then_is_no_loss_while_vault_is_there(
    away_at: str, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, vault, _, _ = stage()
    vault.away_at = away_at

    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        # A byte was tried before the token was sent.
        if len(data) > 1:
            raise OSError(errno.ENOSPC, "full")
        return pwrite(descriptor, data, at)

    monkeypatch.setattr("authpipe_oauth_worker.spool.os.pwrite", full)
    assert (await jobs.refresh(JOB)).failure == failure


@pytest.mark.promise("P36")
async def test_where_the_answer_is_only_looked_for_nothing_is_sent_and_no_client_secret_is_opened() -> None:
    jobs, vault, provider, story = stage()
    assert await jobs.refresh(dataclasses.replace(JOB, spend=False)) == Outcome("ANSWER_AWAITED", nothing_sent=True)
    assert (provider.forms, story) == ([], ["open", "prepare"])
    newer = dataclasses.replace(JOB, spend=False, spent_fence=1)
    assert await jobs.refresh(newer) == Outcome("ANSWER_AWAITED", nothing_sent=True), "it was stored under no lease"
    older = dataclasses.replace(newer, spent_fence=2)
    vault.fence = 1
    assert await jobs.refresh(older) == Outcome("ANSWER_AWAITED", nothing_sent=True), "it is the one that was sent"
    vault.ends = NOW + dt.timedelta(hours=1)
    assert await jobs.refresh(newer) == Outcome("REFRESH_TOKEN_NEWER", expires_at=vault.ends, nothing_sent=True)


@pytest.mark.promise("P36")
async def test_an_answer_that_is_lost_on_its_way_is_told_from_a_provider_that_was_not_reached() -> None:
    for error, outcome in (
        (AnswerLostError(cause=Label("TIMEOUT")), Outcome("PROVIDER_ANSWER_LOST")),
        (EgressError(cause=Label("CONNECTION_FAILED")), Outcome("CONNECTION_FAILED", nothing_sent=True)),
    ):
        jobs, vault, _, _ = stage(error)
        assert await jobs.refresh(JOB) == outcome
        assert vault.records == {RecordClass.REFRESH: b"old-refresh"}


@pytest.mark.promise("P36")
async def test_invalid_grant_is_not_believed_where_somebody_else_has_rotated_the_token_meanwhile() -> None:
    jobs, vault, provider, _ = stage({"error": "invalid_grant"}, 400)
    answer = provider.post_form

    async def rotated(*arguments: Any, **more: Any) -> Answer:
        vault.versions[RecordClass.REFRESH] = 2
        return await answer(*arguments, **more)

    provider.post_form = rotated  # type: ignore[method-assign]
    assert (await jobs.refresh(JOB)).failure == "REFRESH_TOKEN_REPLACED"


@pytest.mark.promise("P36")
async def test_an_answer_that_is_there_and_does_not_open_now_keeps_its_token_from_being_sent_again() -> None:
    jobs, vault, provider, _ = stage()
    opening = vault.open

    async def refused(wants: Sequence[Want]) -> list[Opened | DomainError]:
        refusal = PeerRefused("HSM_UNAVAILABLE", Status.UNAVAILABLE)
        found = zip(wants, await opening(wants), strict=True)
        return [refusal if want.record_class is RecordClass.ANSWER else each for want, each in found]

    vault.open = refused  # type: ignore[method-assign]
    assert await jobs.refresh(JOB) == Outcome("HSM_UNAVAILABLE", nothing_sent=True)
    assert provider.forms == []


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_a_refresh_outlives_whoever_asked_for_it() -> None:
    jobs, vault, provider, _ = stage()
    answering, answered = asyncio.Event(), provider.post_form

    async def slow(*arguments: Any, **more: Any) -> Answer:
        await answering.wait()
        return await answered(*arguments, **more)

    provider.post_form = slow  # type: ignore[method-assign]
    key = ConsumerKey()
    servicer = WorkerServicer(jobs, None, None, None, None, None, key)  # type: ignore[arg-type]
    servicer._job = lambda _: JOB  # type: ignore[method-assign]  # noqa: SLF001  # the wire's part is not told here
    asking = asyncio.create_task(servicer.Refresh(worker_pb2.RefreshRequest(), None))
    await asyncio.sleep(0.01)
    asking.cancel()
    answering.set()
    await servicer.finish()
    assert vault.records[RecordClass.REFRESH] == b"new-refresh"


def claims(proof: Secret | None) -> dict[str, Any]:
    """Gives what a proof says; whether it is good is tested elsewhere."""
    assert proof is not None
    payload = proof.expose().split(b".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(bytes(payload) + b"==")))


@pytest.mark.promise("P13")
async def test_a_flow_whose_tokens_are_to_be_bound_begins_with_a_key_that_is_sealed_beside_the_verifier() -> None:
    jobs, vault, _, story = stage()
    prepared = await jobs.prepare_flow(BOUND)
    assert story[-1] == "put CODE_VERIFIER+DPOP_KEY", "both or none"
    key = vault.records[RecordClass.DPOP_KEY]
    assert prepared.dpop_jkt == Proofs().thumbprint(Secret(key))
    again = await jobs.prepare_flow(BOUND)
    assert vault.records[RecordClass.DPOP_KEY] == key, "the token that is served until then is bound to it"
    assert (again.dpop_jkt, again.challenge) == (prepared.dpop_jkt, prepared.challenge)
    assert story[-1] == "put CODE_VERIFIER"
    assert (await jobs.prepare_flow(JOB)).dpop_jkt == ""


async def test_every_token_request_carries_a_proof_of_its_own() -> None:
    key = bytes(Proofs().new_key().expose())
    jobs, vault, provider, _ = stage({**GOOD, "token_type": "DPoP"}, DPOP_KEY=key, CODE_VERIFIER=b"the-verifier")
    assert (await jobs.exchange_code(BOUND, "the-code", "https://x.example/cb")).failure == ""
    assert json.loads(vault.records[RecordClass.ACCESS])["token_type"] == "DPoP"
    assert (await jobs.refresh(BOUND)).failure == ""
    first, second = map(claims, provider.proofs)
    assert first["jti"] != second["jti"]
    assert [each["htu"] for each in (first, second)] == ["https://as.example/token"] * 2
    assert vault.records[RecordClass.DPOP_KEY] == key


@pytest.mark.promise("P36")
async def test_a_server_that_wants_a_nonce_gets_it_and_the_refresh_token_is_not_spent_for_that() -> None:
    key = bytes(Proofs().new_key().expose())
    jobs, vault, provider, _ = stage({**GOOD, "token_type": "DPoP"}, DPOP_KEY=key)
    provider.wants = lambda proof: "" if claims(proof).get("nonce") == "n-1" else "n-1"
    assert (await jobs.refresh(BOUND)).failure == ""
    assert [claims(each).get("nonce") for each in provider.proofs] == [None, "n-1"]
    assert [form["refresh_token"] for form in provider.forms] == ["old-refresh"] * 2
    assert vault.records[RecordClass.REFRESH] == b"new-refresh"
    assert (await jobs.refresh(BOUND)).failure == ""
    assert claims(provider.proofs[2])["nonce"] == "n-1", "it is remembered"


@pytest.mark.promise("P36")
async def test_a_server_that_is_content_with_no_nonce_is_asked_twice_and_no_more() -> None:
    jobs, vault, provider, _ = stage(DPOP_KEY=bytes(Proofs().new_key().expose()))
    numbers = iter(range(9))
    provider.wants = lambda _: f"n-{next(numbers)}"
    assert (await jobs.refresh(BOUND)).failure == "USE_DPOP_NONCE"
    assert len(provider.forms) == 2
    assert vault.records[RecordClass.REFRESH] == b"old-refresh"


async def test_a_connection_without_a_key_is_refreshed_without_a_proof() -> None:
    """Its tokens were brought along: nothing binds them."""
    jobs, _, provider, _ = stage()
    assert (await jobs.refresh(BOUND)).failure == ""
    assert provider.proofs == [None]


@pytest.mark.case(24)
async def test_where_the_key_is_bound_elsewhere_the_provider_sees_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, vault, provider, _ = stage(DPOP_KEY=bytes(Proofs().new_key().expose()))

    async def elsewhere(wants: Sequence[Want]) -> list[Opened | DomainError]:
        found = await Store.open(vault, wants)
        moved = hosts_digest({"evil.example"})
        return [
            each._replace(hosts=moved)
            if isinstance(each, Opened) and each.record_class is RecordClass.DPOP_KEY
            else each
            for each in found
        ]

    monkeypatch.setattr(vault, "open", elsewhere)
    assert await jobs.refresh(BOUND) == Outcome(HostError.reason, nothing_sent=True)
    assert provider.forms == []


@pytest.mark.parametrize("word", ["DPoP", "dpop"])
async def test_a_token_that_claims_to_be_bound_where_no_key_was_shown_is_not_taken(word: str) -> None:
    jobs, _, _, _ = stage({**GOOD, "token_type": word})
    assert (await jobs.refresh(JOB)).failure == "TOKEN_TYPE_UNKNOWN"
