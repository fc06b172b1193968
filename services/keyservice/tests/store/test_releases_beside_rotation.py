"""A release that looked its key up just before that was moved: it looks again, and refuses only what is erased."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
from authpipe_envelope import RecordClass
from authpipe_grants import Grant, ReleasedKey, thumbprint
from authpipe_keyservice.domain.release import Direction, Wanted
from authpipe_keyservice.domain.asking import Ask
from authpipe_keyservice.domain.releasing import Releasing
from authpipe_keyservice.domain.remembered import KeyRow, Remembered
from authpipe_keyservice.errors import WorkspaceErasedError
from authpipe_sensitive import AuditEntry

PUBLIC_KEY = bytes(32)
GRANT = Grant(
    issuer="gateway/authority",
    audience=("user-credentials/eu",),
    consumer="gateway/edge",
    consumer_thumbprint=thumbprint(PUBLIC_KEY),
    purpose="store",
    workspace="ws_a",
    connections=("con_a",),
    classes=(int(RecordClass.API_KEY),),
    fence=0,
    forced=False,
    actor="api_key:k",
    request_id="r",
    grant_id="g",
    issued_at=0,
    expires_at=60,
)
ASK = Ask(Wanted("ws_a", "con_a", RecordClass.API_KEY, 1, Direction.WRITE), "token", "r")


class Around:
    """Grants that are good and budgets that are large; and key rows that were looked up a moment ago."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.stale: list[list[KeyRow | None]] = []

    def verify(self, _: str) -> Grant:
        return GRANT

    async def exceeded(self, *_: Any) -> str:
        return ""

    async def note_refusal(self, _: str) -> bool:
        return False

    async def note_clock(self, _: str) -> bool:
        return False

    async def look_up(self, wanted: Sequence[Wanted]) -> list[KeyRow | None]:
        return self.stale.pop() if self.stale else await self.table.look_up(wanted)

    async def commit(self, *_: Any) -> None: ...
    def require_room(self, _: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)


def releasing(node: Any, around: Around) -> Releasing:
    return Releasing(
        key_domain="user-credentials",
        region="eu",
        store=around,
        deks=node.deks,
        verifier=around,  # type: ignore[arg-type]
        budgets=around,  # type: ignore[arg-type]
        cache=node.cache,
        remembered=Remembered(lambda: 30.0, 60.0),
        clock=lambda: 30.0,
        randomness=os.urandom,
    )


async def ask(node: Any, around: Around) -> list[Any]:
    """Has a write key released, with nothing in the cache; gives the answers."""
    node.cache.forget("", "")
    sealed: list[tuple[int, ReleasedKey]] = []

    def seal(keys: Sequence[tuple[int, ReleasedKey]]) -> bytes:
        sealed.extend(keys)
        return b"sealed"

    return list((await releasing(node, around).release(PUBLIC_KEY, [ASK], seal)).answers)


@pytest.mark.promise("P03")
@pytest.mark.case(7)
async def test_a_dek_rotated_and_destroyed_since_the_look_up_fails_no_release(stage: Any) -> None:
    node = stage.node(stage.token())
    await node.settle()
    around = Around(node.key_table)
    assert await ask(node, around) == [1]
    before = await node.key_table.look_up([ASK.wanted])
    await node.workspaces.rotate_dek("ws_a", "operator:a", "r")
    await node.workspaces.advance()
    row = await node.dek_table.get_dek("ws_a", 1)
    assert row is not None
    assert row.state.value == "destroyed"
    around.stale = [before]
    assert await ask(node, around) == [1]


@pytest.mark.promise("P03")
async def test_a_workspace_that_is_being_erased_is_refused_all_the_same(stage: Any) -> None:
    node = stage.node(stage.token())
    await node.settle()
    around = Around(node.key_table)
    assert await ask(node, around) == [1]
    before = await node.key_table.look_up([ASK.wanted])
    entry = AuditEntry(name="WORKSPACE_ERASURE_SCHEDULED", outcome="SUCCEEDED", actor="operator:a", request_id="r")
    await node.workspace_table.schedule("ws_a", 2e9, entry)
    around.stale = [before]
    found = await ask(node, around)
    assert isinstance(found[0], WorkspaceErasedError)


@pytest.mark.promise("P06")
@pytest.mark.case(7)
async def test_a_kek_version_disabled_since_a_dek_was_read_fails_no_release(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = stage.node(stage.token())
    await node.settle()
    around = Around(node.key_table)
    assert await ask(node, around) == [1]
    before = await node.dek_table.get_dek("ws_a", 1)
    await node.rotation.rotate("operator:a", "r")
    await node.settle()
    found, stale = node.dek_table.get_dek, [before]

    async def get_dek(workspace: str, version: int) -> Any:
        return stale.pop() if stale else await found(workspace, version)

    monkeypatch.setattr(node.dek_table, "get_dek", get_dek)
    assert await ask(node, around) == [1]
    assert stale == []
