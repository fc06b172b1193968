"""Keys that are kept: who may take one back, until when, and that keyservice ends them by itself (promise P12)."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from authpipe_database import Database, Outbox
from authpipe_grants import Grant, GrantError
from authpipe_keyservice.domain.keeping import Keeping
from authpipe_keyservice.domain.release import KeyState
from authpipe_keyservice.errors import KeptTooLongError, NotKeptError
from authpipe_keyservice.store import KeyTable
from authpipe_sensitive import AuditEntry

GRANT = Grant(
    issuer="gateway/authority",
    audience=("user-credentials/eu",),
    consumer="vault",
    consumer_thumbprint="",
    purpose="reconnect",
    workspace="ws",
    connections=("con",),
    classes=(),
    fence=0,
    forced=False,
    actor="api_key:k",
    request_id="r",
    grant_id="g",
    issued_at=0,
    expires_at=60,
)
Events = Callable[[], Awaitable[list[str]]]
RESTRICTED = AuditEntry(name="CONTEXT_KEY_RESTRICTED", outcome="SUCCEEDED", actor="service:vault", request_id="r")


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def rules(table: KeyTable, grant: Grant = GRANT) -> Keeping:
    return Keeping(table, lambda _: grant, "user-credentials/eu", now)


@pytest.fixture
async def keys(stage: Any, clean: Database) -> KeyTable:  # the stage has no key on it
    """A table with one key in it that is active."""
    async with clean.transaction() as connection:
        await connection.execute(
            sa.text(
                "insert into connection_keys (workspace_id, connection_id, version, dek_version, wrapped, state)"
                " values ('ws', 'con', 1, 1, 'wrapped', 'active')"
            )
        )
    return KeyTable(clean, Outbox())


async def row(database: Database) -> tuple[str, bytes]:
    async with database.transaction() as connection:
        found = (await connection.execute(sa.text("select state, wrapped from connection_keys"))).one()
    return found.state, bytes(found.wrapped)


async def pass_by(database: Database) -> None:
    """Lets the time be over for which it is kept."""
    async with database.transaction() as connection:
        await connection.execute(sa.text("update connection_keys set kept_until = now() - interval '1 second'"))


@pytest.mark.promise("P12")
async def test_what_is_kept_is_taken_back_with_authoritys_grant_for_that_connection(
    keys: KeyTable, clean: Database, events: Events
) -> None:
    await rules(keys).keep("ws", "con", now() + dt.timedelta(days=30), "vault", "r")
    assert await row(clean) == ("kept", b"wrapped")
    await rules(keys).restore("a grant", "r")
    assert await row(clean) == ("active", b"wrapped")
    assert await events() == ["CONTEXT_KEY_KEPT", "CONTEXT_KEY_RESTORED"]


@pytest.mark.promise("P12")
@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "serve"},
        {"purpose": "refresh"},
        {"issuer": "oauth/coordinator"},
        {"issuer": "vault"},
        {"audience": ("client-secrets/eu",)},
        {"audience": ("user-credentials/us",)},
        {"connections": ()},
        {"connections": ("con", "another")},
    ],
    ids=str,
)
async def test_any_other_grant_takes_nothing_back(
    change: dict[str, object], keys: KeyTable, clean: Database, events: Events
) -> None:
    await rules(keys).keep("ws", "con", now() + dt.timedelta(days=1), "vault", "r")
    with pytest.raises(GrantError):
        await rules(keys, dataclasses.replace(GRANT, **change)).restore("a grant", "r")  # type: ignore[arg-type]
    assert await row(clean) == ("kept", b"wrapped")
    assert await events() == ["CONTEXT_KEY_KEPT"]


@pytest.mark.promise("P12")
@pytest.mark.parametrize("change", [{"connections": ("another",)}, {"workspace": "ws_b"}], ids=str)
async def test_a_grant_for_another_connection_or_workspace_finds_nothing(
    change: dict[str, object], keys: KeyTable, clean: Database
) -> None:
    await rules(keys).keep("ws", "con", now() + dt.timedelta(days=1), "vault", "r")
    with pytest.raises(NotKeptError):
        await rules(keys, dataclasses.replace(GRANT, **change)).restore("a grant", "r")  # type: ignore[arg-type]
    assert await row(clean) == ("kept", b"wrapped")


@pytest.mark.promise("P12")
async def test_after_thirty_days_it_is_over_though_a_store_that_was_taken_over_says_otherwise(
    keys: KeyTable, clean: Database, events: Events
) -> None:
    with pytest.raises(KeptTooLongError):
        await rules(keys).keep("ws", "con", now() + dt.timedelta(days=31), "vault", "r")
    await rules(keys).keep("ws", "con", now() + dt.timedelta(days=30), "vault", "r")
    await pass_by(clean)
    # The store keeps it again, by way of another state too.
    await rules(keys).keep("ws", "con", now() + dt.timedelta(days=30), "vault", "r")
    await keys.set_state("ws", "con", KeyState.RESTRICTED, RESTRICTED)
    await rules(keys).keep("ws", "con", now() + dt.timedelta(days=30), "vault", "r")
    with pytest.raises(NotKeptError):
        await rules(keys).restore("a grant", "r")
    await rules(keys).sweep()
    assert await row(clean) == ("destroyed", b"")
    assert (await events())[-1] == "CONTEXT_KEY_DESTROYED"
    await rules(keys).sweep()
    assert (await events()).count("CONTEXT_KEY_DESTROYED") == 1
    with pytest.raises(NotKeptError):
        await rules(keys).keep("ws", "con", now() + dt.timedelta(days=30), "vault", "r")


@pytest.mark.promise("P12")
async def test_what_is_not_over_and_what_was_taken_back_is_not_destroyed(keys: KeyTable, clean: Database) -> None:
    await rules(keys).keep("ws", "con", now() + dt.timedelta(minutes=1), "vault", "r")
    await rules(keys).sweep()
    assert (await row(clean))[0] == "kept"
    await rules(keys).restore("a grant", "r")
    async with clean.transaction() as connection:
        ends = await connection.scalar(sa.text("select kept_until from connection_keys"))
    assert ends is None
    await rules(keys).sweep()
    assert (await row(clean))[0] == "active"


@pytest.mark.promise("P12")
async def test_the_attack_sees_a_key_that_is_kept_longer_by_asking_again(keys: KeyTable, clean: Database) -> None:
    async def keep_longer(workspace: str, connection_id: str, until: dt.datetime, entry: AuditEntry) -> bool:
        async with clean.transaction() as connection:
            await connection.execute(
                sa.text("update connection_keys set state = 'kept', kept_until = :until"), {"until": until}
            )
        return True

    keys.keep = keep_longer  # type: ignore[method-assign]
    with pytest.raises(pytest.fail.Exception):
        await test_after_thirty_days_it_is_over_though_a_store_that_was_taken_over_says_otherwise(
            keys, clean, lambda: _none()
        )


async def _none() -> list[str]:
    return []
