"""Who may have which record key, for what: the table of purposes, and the judgement of one item.

The table is keyservice's own: what a signer writes into a grant cannot widen it (promise P09).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from authpipe_envelope import CLIENT_SECRETS, SERVABLE, RecordClass
from authpipe_grants import Grant, GrantError
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

FORCED_INTERVAL_MS = 10_000
CHECK_INTERVAL_MS = 60_000
# For how long after a write the version before it may still arrive, from a reader that was on its way.
SUPERSEDED_MS = 2_000

_AUTHORITY, _COORDINATOR = "gateway/authority", "oauth/coordinator"
_EDGE, _WORKER = "gateway/edge", "oauth/worker"


class Direction(enum.Enum):
    """Whether a key opens a stored record or seals the next version."""

    READ = "read"
    WRITE = "write"


class KeyState(enum.Enum):
    """States of a connection key.

    active → restricted (only revocation) → destroyed; active → destroyed. restricted → kept (nothing opens), from where a
    grant of authority's for that leads back to active until it is over: kept → active, kept → restricted, kept → destroyed.
    """

    ACTIVE = "active"
    RESTRICTED = "restricted"
    KEPT = "kept"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table: who signs for whom, which classes, in which key domain, in which state of the key."""

    signer: str
    consumer: str
    reads: frozenset[RecordClass]
    writes: frozenset[RecordClass]
    key_domain: str = "user-credentials"
    state: KeyState = KeyState.ACTIVE
    fenced: bool = False


_NONE: frozenset[RecordClass] = frozenset()
_TOKENS = frozenset({RecordClass.ACCESS, RecordClass.REFRESH, RecordClass.ANSWER})
_CHECKED = frozenset(
    {RecordClass.ACCESS, RecordClass.API_KEY, RecordClass.BASIC, RecordClass.OAUTH1, RecordClass.DPOP_KEY}
)
_SECRET = CLIENT_SECRETS
_KEPT = SERVABLE | {RecordClass.REFRESH, RecordClass.DPOP_KEY}
_VERIFIER = frozenset({RecordClass.CODE_VERIFIER})
# Used by the worker beside a token that is bound to it; nothing else has it (RFC 9449).
_PROOF = frozenset({RecordClass.DPOP_KEY})

TABLE: dict[str, tuple[Rule, ...]] = {
    "serve": (Rule(_AUTHORITY, _EDGE, SERVABLE, _NONE),),
    "proxy": (Rule(_AUTHORITY, _WORKER, SERVABLE | _PROOF, _NONE),),
    "store": (
        Rule(_COORDINATOR, _WORKER, _PROOF, _VERIFIER | _PROOF),
        Rule(_AUTHORITY, _EDGE, _NONE, SERVABLE | {RecordClass.REFRESH}),
    ),
    "exchange": (Rule(_COORDINATOR, _WORKER, _VERIFIER | _PROOF, _TOKENS | {RecordClass.OAUTH1}),),
    "refresh": (
        # The key of tokens that no person's flow gave is made before the first of them is asked for.
        Rule(
            _COORDINATOR,
            _WORKER,
            _PROOF | {RecordClass.REFRESH, RecordClass.ANSWER},
            _PROOF | _TOKENS,
            fenced=True,
        ),
    ),
    "revoke": (
        Rule(
            _COORDINATOR,
            _WORKER,
            frozenset({RecordClass.ACCESS, RecordClass.REFRESH}),
            _NONE,
            state=KeyState.RESTRICTED,
        ),
    ),
    "health_check": (Rule(_COORDINATOR, _WORKER, _CHECKED, _NONE),),
    "rotation_check": (Rule(_COORDINATOR, _WORKER, _CHECKED, _NONE),),
    "client_authentication": (Rule(_COORDINATOR, _WORKER, _SECRET, _NONE, key_domain="client-secrets"),),
    "reseal": (
        Rule(_COORDINATOR, _WORKER, _KEPT, _KEPT, fenced=True),
        Rule(_COORDINATOR, _WORKER, _SECRET, _SECRET, key_domain="client-secrets"),
    ),
    "configure": (Rule(_AUTHORITY, _EDGE, _NONE, _SECRET, key_domain="client-secrets"),),
}


class Wanted(NamedTuple):
    """One key that is asked for.

    Args:
        workspace: The tenant that the store says the record belongs to.
        connection: The connection or provider configuration.
        record_class: Its class.
        version: To read, the version stored; to write, the version to come.
        direction: To read or to write.
    """

    workspace: str
    connection: str
    record_class: RecordClass
    version: int
    direction: Direction


class KeyFacts(NamedTuple):
    """What keyservice itself knows of a connection key and a record; the store is not believed.

    Args:
        state: The state of the connection key.
        floor: The version in force; 0: none yet.
        fence: The newest fence seen.
        refresh_not_before_ms: From when on it may be refreshed.
        last_forced_ms: When it was last force-refreshed.
        last_forced_grant: Its `mark_of`; empty: it never was.
        last_check_ms: When it was last checked.
        last_check_grant: Its `mark_of`; empty: it never was.
        key_version: The newest version of the connection key.
        record_key_version: The one that the version in force is sealed under; 0: none is in force.
        floor_age_ms: How long ago it came into force.
    """

    state: KeyState
    floor: int
    fence: int
    refresh_not_before_ms: int
    last_forced_ms: int
    last_forced_grant: str
    last_check_ms: int
    last_check_grant: str
    key_version: int
    record_key_version: int
    floor_age_ms: int


def mark_of(grant: Grant, wanted: Wanted) -> str:
    """Gives what a forced refresh or a check is known by, when it is asked for again.

    The version is in it, as a signer chooses the ids of its grants: one that was taken over must not use one id for ever.
    """
    return f"{grant.grant_id}:{int(wanted.record_class)}:{wanted.version}"


def judge(  # the conditions stand in the order in which they are refused  # noqa: C901, PLR0912  # the conditions stand in the order in which they are refused
    grant: Grant, wanted: Wanted, facts: KeyFacts | None, thumbprint: str, audience: str, now_ms: int
) -> None:
    """Judges one item; returns when its key may be released.

    Args:
        grant: Verified: signature, chain and time are good.
        wanted: What is asked for.
        facts: What is known; None: there is no such connection key (a first write makes it).
        thumbprint: Of the public key that the key would be sealed to.
        audience: Key domain and region of this process.
        now_ms: Milliseconds since the epoch.

    Raises:
        GrantError: The grant is not for this: audience, consumer key, workspace, connection or class.
        PurposeError: No row of the table allows it.
        ErasedError: The key is destroyed or was never made.
        NotActiveError: The key's state forbids it.
        RolledBackError: The version is older than the floor.
        SupersededError: It is the one before the floor, which was raised a moment ago.
        NotDueError: A refresh before its time.
        FenceError: A newer lease exists.
        RecordCurrentError: It is to be sealed again and is on the newest key version.
    """
    # Step 1: the grant is for us, for this consumer's key, and names this record.
    named = wanted.connection in grant.connections and int(wanted.record_class) in grant.classes
    if audience not in grant.audience or grant.consumer_thumbprint != thumbprint:
        raise GrantError
    if grant.workspace != wanted.workspace or not named:
        raise GrantError
    # Step 2: the table has a row for it.
    key_domain = audience.partition("/")[0]
    rule = next(
        (
            rule
            for rule in TABLE.get(grant.purpose, ())
            if rule.signer == grant.issuer
            and rule.consumer == grant.consumer
            and rule.key_domain == key_domain
            and wanted.record_class in (rule.reads if wanted.direction is Direction.READ else rule.writes)
        ),
        None,
    )
    if rule is None:
        raise PurposeError
    # Step 3: the key's own state.
    if facts is None:
        if wanted.direction is Direction.READ or wanted.version != 1:
            raise ErasedError
        if rule.state is not KeyState.ACTIVE or rule.fenced:
            raise ErasedError
        return
    if facts.state is KeyState.DESTROYED:
        raise ErasedError
    if facts.state is not rule.state:
        raise NotActiveError
    # Step 4: never an older version than the one in force.
    lowest = facts.floor if wanted.direction is Direction.READ else facts.floor + 1
    if wanted.version < lowest:
        # A reader that met the version before, just before a write, asks again; an older one than that was put back.
        met = wanted.direction is Direction.READ and wanted.version == facts.floor - 1
        if met and facts.floor_age_ms < SUPERSEDED_MS:
            raise SupersededError
        raise RolledBackError
    # Step 5: the extra condition of the purpose.
    if rule.fenced:
        if grant.fence < 1 or grant.fence < facts.fence:
            raise FenceError
        # Who seals a refresh token again does not use it.
        spends = wanted.direction is Direction.READ and wanted.record_class is RecordClass.REFRESH
        if spends and grant.purpose != "reseal":
            early = now_ms < facts.refresh_not_before_ms
            # Whoever comes with the grant of the last one, for the same version, asks again because its answer was lost: that is no
            # second refresh.
            again = mark_of(grant, wanted) == facts.last_forced_grant
            if early and not (grant.forced and (again or now_ms - facts.last_forced_ms >= FORCED_INTERVAL_MS)):
                raise NotDueError
    if grant.purpose == "reseal" and not 0 < facts.record_key_version < facts.key_version:
        raise RecordCurrentError
    checks = grant.purpose in {"health_check", "rotation_check"} and mark_of(grant, wanted) != facts.last_check_grant
    if checks and now_ms - facts.last_check_ms < CHECK_INTERVAL_MS:
        raise NotDueError
