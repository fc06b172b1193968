"""Who gets a record key: the whole caller × purpose × class table, every attack on a grant, and mutants of the judge."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from authpipe.types.v1 import records_pb2
from authpipe_envelope import RecordClass
from authpipe_grants import Grant, GrantError
from authpipe_keyservice.domain import release
from authpipe_keyservice.domain.release import TABLE, Direction, KeyFacts, KeyState, Wanted, judge, mark_of
from authpipe_keyservice.errors import (
    ErasedError,
    FenceError,
    NotActiveError,
    NotDueError,
    PurposeError,
    RecordCurrentError,
    RolledBackError,
    SupersededError,
)
from authpipe_sensitive import DomainError

NOW = 1_000_000_000
# The connection key was rotated since the record was sealed.
FACTS = KeyFacts(
    KeyState.ACTIVE,
    floor=5,
    fence=3,
    refresh_not_before_ms=NOW - 1,
    last_forced_ms=0,
    last_forced_grant="",
    last_check_ms=0,
    last_check_grant="",
    key_version=2,
    record_key_version=1,
    floor_age_ms=2_000,
)
GRANT = Grant(
    issuer="gateway/authority",
    audience=("user-credentials/eu",),
    consumer="gateway/edge",
    consumer_thumbprint="thumb",
    purpose="serve",
    workspace="ws_a",
    connections=("con_a",),
    classes=(1, 3),
    fence=0,
    forced=False,
    actor="api_key:k",
    request_id="r",
    grant_id="g",
    issued_at=0,
    expires_at=60,
)
WANTED = Wanted("ws_a", "con_a", RecordClass.ACCESS, 5, Direction.READ)
CHECK = dataclasses.replace(GRANT, issuer="oauth/coordinator", consumer="oauth/worker", purpose="health_check")
REFRESH = dataclasses.replace(
    GRANT, issuer="oauth/coordinator", consumer="oauth/worker", purpose="refresh", classes=(1, 2, 8), fence=3
)
RESEAL = dataclasses.replace(REFRESH, purpose="reseal", classes=(1, 2))
WANTED_REFRESH = WANTED._replace(record_class=RecordClass.REFRESH)
Judge = Callable[..., None]


def run(
    grant: Grant = GRANT,
    wanted: Wanted = WANTED,
    facts: KeyFacts | None = FACTS,
    thumbprint: str = "thumb",
    audience: str = "user-credentials/eu",
    by: Judge = judge,
) -> None:
    by(grant, wanted, facts, thumbprint, audience, NOW)


def test_what_is_allowed_is_allowed() -> None:
    run()
    run(REFRESH, WANTED_REFRESH)
    run(REFRESH, WANTED_REFRESH._replace(direction=Direction.WRITE, version=6))
    run(RESEAL, WANTED_REFRESH, FACTS._replace(refresh_not_before_ms=NOW + 1))
    run(RESEAL, WANTED._replace(direction=Direction.WRITE, version=6))


@pytest.mark.promise("P09")
def test_the_whole_table_of_signer_consumer_purpose_class_and_direction() -> None:
    """Default deny: of all combinations exactly those of the table pass."""
    signers = ["gateway/authority", "oauth/coordinator", "vault", "gateway/edge", "oauth/worker"]
    consumers = ["gateway/edge", "oauth/worker", "vault", "gateway/authority", "oauth/coordinator"]
    purposes = [*TABLE, "manage.serve", "manage", "", "unknown"]
    domains = ["user-credentials", "client-secrets", "audit-log"]
    passed = 0
    for signer, consumer, purpose, domain, record_class, direction in itertools.product(
        signers, consumers, purposes, domains, RecordClass, Direction
    ):
        rules = [
            rule
            for rule in TABLE.get(purpose, ())
            if (rule.signer, rule.consumer, rule.key_domain) == (signer, consumer, domain)
        ]
        allowed = any(record_class in (rule.reads if direction is Direction.READ else rule.writes) for rule in rules)
        state = KeyState.RESTRICTED if purpose == "revoke" else KeyState.ACTIVE
        facts = FACTS._replace(state=state)
        grant = dataclasses.replace(
            GRANT,
            issuer=signer,
            consumer=consumer,
            purpose=purpose,
            audience=(f"{domain}/eu",),
            classes=(int(record_class),),
            fence=9,
        )
        wanted = Wanted("ws_a", "con_a", record_class, 5 if direction is Direction.READ else 6, direction)
        try:
            run(grant, wanted, facts, audience=f"{domain}/eu")
        except PurposeError:
            assert not allowed, (signer, consumer, purpose, domain, record_class, direction)
        else:
            assert allowed, (signer, consumer, purpose, domain, record_class, direction)
            passed += 1
    assert passed == sum(len(rule.reads) + len(rule.writes) for rules in TABLE.values() for rule in rules)


ATTACKS: dict[str, tuple[dict[str, Any], type[DomainError]]] = {
    "other workspace": ({"wanted": WANTED._replace(workspace="ws_b")}, GrantError),
    "other connection": ({"wanted": WANTED._replace(connection="con_b")}, GrantError),
    "class not in the grant": ({"wanted": WANTED._replace(record_class=RecordClass.BASIC)}, GrantError),
    "other consumer's key": ({"thumbprint": "other"}, GrantError),
    "other audience": ({"audience": "user-credentials/us"}, GrantError),
    "serve asking for refresh": (
        {"grant": dataclasses.replace(GRANT, classes=(2,)), "wanted": WANTED_REFRESH},
        PurposeError,
    ),
    "signer not of this purpose": ({"grant": dataclasses.replace(GRANT, issuer="oauth/coordinator")}, PurposeError),
    "consumer not of this purpose": ({"grant": dataclasses.replace(GRANT, consumer="vault")}, PurposeError),
    "older than the floor": ({"wanted": WANTED._replace(version=4)}, RolledBackError),
    "two older than the floor, just after a write": (
        {"wanted": WANTED._replace(version=3), "facts": FACTS._replace(floor_age_ms=0)},
        RolledBackError,
    ),
    "write over the version in force, just after it": (
        {
            "grant": REFRESH,
            "wanted": WANTED_REFRESH._replace(direction=Direction.WRITE, version=4),
            "facts": FACTS._replace(floor_age_ms=0),
        },
        RolledBackError,
    ),
    "met on its way by a write": (
        {"wanted": WANTED._replace(version=4), "facts": FACTS._replace(floor_age_ms=1_999)},
        SupersededError,
    ),
    "write over the version in force": (
        {"grant": REFRESH, "wanted": WANTED_REFRESH._replace(direction=Direction.WRITE, version=5)},
        RolledBackError,
    ),
    "disconnecting": ({"facts": FACTS._replace(state=KeyState.RESTRICTED)}, NotActiveError),
    "erased": ({"facts": FACTS._replace(state=KeyState.DESTROYED)}, ErasedError),
    "never made": ({"facts": None}, ErasedError),
    "refresh before due": (
        {
            "grant": REFRESH,
            "wanted": WANTED_REFRESH,
            "facts": FACTS._replace(refresh_not_before_ms=NOW + 1),
        },
        NotDueError,
    ),
    "refresh with an old fence": (
        {"grant": dataclasses.replace(REFRESH, fence=2), "wanted": WANTED_REFRESH},
        FenceError,
    ),
    "refresh without a lease": (
        {
            "grant": dataclasses.replace(REFRESH, fence=0),
            "wanted": WANTED_REFRESH,
            "facts": FACTS._replace(fence=0),
        },
        FenceError,
    ),
    "forced twice within ten seconds": (
        {
            "grant": dataclasses.replace(REFRESH, forced=True),
            "wanted": WANTED_REFRESH,
            "facts": FACTS._replace(refresh_not_before_ms=NOW + 1, last_forced_ms=NOW - 9_999),
        },
        NotDueError,
    ),
    "checked twice within a minute": (
        {"grant": CHECK, "wanted": WANTED, "facts": FACTS._replace(last_check_ms=NOW - 59_999)},
        NotDueError,
    ),
    "forced again under the same grant's id after the token was rotated": (
        {
            "grant": dataclasses.replace(REFRESH, forced=True),
            "wanted": WANTED_REFRESH,
            "facts": FACTS._replace(
                refresh_not_before_ms=NOW + 1,
                last_forced_ms=NOW - 1,
                last_forced_grant=mark_of(REFRESH, WANTED_REFRESH._replace(version=4)),
            ),
        },
        NotDueError,
    ),
    "checked again and again under no id": (
        {
            "grant": dataclasses.replace(CHECK, grant_id=""),
            "wanted": WANTED,
            "facts": FACTS._replace(last_check_ms=NOW - 1),
        },
        NotDueError,
    ),
    "early with the grant of the last forced one, not forced": (
        {
            "grant": REFRESH,
            "wanted": WANTED_REFRESH,
            "facts": FACTS._replace(refresh_not_before_ms=NOW + 1, last_forced_grant=mark_of(REFRESH, WANTED_REFRESH)),
        },
        NotDueError,
    ),
    "sealing again what is on the newest key": (
        {"grant": RESEAL, "wanted": WANTED, "facts": FACTS._replace(record_key_version=2)},
        RecordCurrentError,
    ),
    "sealing again what no operator has rotated": (
        {"grant": RESEAL, "wanted": WANTED, "facts": FACTS._replace(key_version=1)},
        RecordCurrentError,
    ),
    "sealing again what is not in force yet": (
        {"grant": RESEAL, "wanted": WANTED, "facts": FACTS._replace(record_key_version=0)},
        RecordCurrentError,
    ),
    "overwriting what is on the newest key": (
        {
            "grant": RESEAL,
            "wanted": WANTED._replace(direction=Direction.WRITE, version=6),
            "facts": FACTS._replace(record_key_version=2),
        },
        RecordCurrentError,
    ),
    "sealing again without a lease": (
        {"grant": dataclasses.replace(RESEAL, fence=0), "wanted": WANTED, "facts": FACTS._replace(fence=0)},
        FenceError,
    ),
    "revoke while active": (
        {"grant": dataclasses.replace(REFRESH, purpose="revoke"), "wanted": WANTED_REFRESH},
        NotActiveError,
    ),
}


@pytest.mark.promise("P09")
@pytest.mark.case(9)
@pytest.mark.case(10)
@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_refused_by_its_own_reason(name: str) -> None:
    arguments, error = ATTACKS[name]
    with pytest.raises(error):
        run(**arguments)


def test_a_forced_refresh_may_come_early_once() -> None:
    facts = FACTS._replace(refresh_not_before_ms=NOW + 1, last_forced_ms=NOW - 10_000)
    run(dataclasses.replace(REFRESH, forced=True), WANTED_REFRESH, facts)


@pytest.mark.promise("P36")
def test_who_asks_again_with_the_same_grant_as_an_answer_was_lost_is_answered() -> None:
    facts = FACTS._replace(
        refresh_not_before_ms=NOW + 1, last_forced_ms=NOW, last_forced_grant=mark_of(REFRESH, WANTED_REFRESH)
    )
    run(dataclasses.replace(REFRESH, forced=True), WANTED_REFRESH, facts)
    with pytest.raises(NotDueError):
        run(REFRESH, WANTED_REFRESH, facts)
    run(CHECK, WANTED, FACTS._replace(last_check_ms=NOW, last_check_grant=mark_of(CHECK, WANTED)))


# Each mutant switches one control off; the attacks have to see it.
MUTANTS = {
    "audience": ("audience not in grant.audience or ", ""),
    "consumer key": (" or grant.consumer_thumbprint != thumbprint", ""),
    "workspace": ("grant.workspace != wanted.workspace or ", ""),
    "connection": ("wanted.connection in grant.connections and ", ""),
    "class": (" and int(wanted.record_class) in grant.classes", ""),
    "signer": ("if rule.signer == grant.issuer\n            and ", "if "),
    "consumer": ("            and rule.consumer == grant.consumer\n", ""),
    "record class of the purpose": (
        "            and wanted.record_class in (rule.reads if wanted.direction is Direction.READ else rule.writes)\n",
        "",
    ),
    "erased": ("if facts.state is KeyState.DESTROYED:", "if False:"),
    "state": ("if facts.state is not rule.state:", "if False:"),
    "floor": ("if wanted.version < lowest:", "if False:"),
    "superseded for ever": (" and facts.floor_age_ms < SUPERSEDED_MS", ""),
    "superseded by two": ("wanted.version == facts.floor - 1", "True"),
    "superseded writes": ("wanted.direction is Direction.READ and wanted.version == facts", "wanted.version == facts"),
    "fence": (" or grant.fence < facts.fence", ""),
    "lease": ("grant.fence < 1 or ", ""),
    "due": ("if early and", "if False and"),
    "reseal": ('if grant.purpose == "reseal" and', "if False and"),
    "reseal of what is in force": ("0 < facts.record_key_version < facts.key_version", "facts.record_key_version == 1"),
    "forced interval": ("again or now_ms - facts.last_forced_ms >= FORCED_INTERVAL_MS", "True"),
    "forced": ("grant.forced and (again", "(again"),
    "check interval": ("now_ms - facts.last_check_ms < CHECK_INTERVAL_MS", "False"),
}


@pytest.mark.case(9)
@pytest.mark.case(10)
@pytest.mark.parametrize("control", MUTANTS)
def test_the_attacks_see_every_control_that_is_switched_off(control: str) -> None:
    source = inspect.getsource(judge)
    old, new = MUTANTS[control]
    assert old in source, "the control is not written like this any more: mend the mutant"
    namespace = dict(vars(release))
    exec(source.replace(old, new), namespace)  # our own source, changed
    noticed = []
    for name, (arguments, error) in ATTACKS.items():
        try:
            run(**arguments, by=namespace["judge"])
        except error:
            continue
        except DomainError:
            pass
        noticed.append(name)
    assert noticed


def test_record_classes_are_those_of_the_protos() -> None:
    assert {each.name: int(each) for each in RecordClass} == {
        name.removeprefix("RECORD_CLASS_"): number for name, number in records_pb2.RecordClass.items() if number
    }
