"""Who may take access away from a workspace: an operator, or edge with a grant for just that act."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from authpipe_gateway_authority.domain.acting import Actors, Asked
from authpipe_gateway_authority.domain.containing import Containing
from authpipe_gateway_authority.errors import MalformedError
from authpipe_grants import Grant, GrantError

GRANT = Grant(
    issuer="gateway/authority", audience=("gateway/eu",), consumer="gateway/edge", consumer_thumbprint="t",
    purpose="manage.freeze", workspace="ws_1", connections=(), classes=(), fence=0, forced=False, actor="api_key:key_1",
    request_id="r", grant_id="g", issued_at=0, expires_at=60,
)  # fmt: skip


class Store:
    """authority's tables; notes whose workspace was frozen, and by whom."""

    def __init__(self) -> None:
        self.frozen: list[tuple[str, str]] = []

    async def set_frozen(self, workspace: str, *, frozen: bool, entry: Any) -> bool:
        """Freezes."""
        assert frozen
        self.frozen.append((workspace, entry.actor))
        return False

    async def note(self, _: Any) -> None:
        """Is not to be reached."""
        raise AssertionError

    async def revoke_api_keys(self, *_: Any, **__: Any) -> int:
        """Is not to be reached."""
        raise AssertionError


def containing(store: Store, **changes: Any) -> Containing:
    actors = Actors(lambda _: dataclasses.replace(GRANT, **changes), "gateway/eu")
    return Containing(store, actors, lambda: None)


@pytest.mark.promise("P27")
async def test_edge_freezes_the_grants_workspace_whatever_it_names_and_an_operator_the_one_he_names() -> None:
    store = Store()
    await containing(store).freeze(Asked("gateway/edge", "token", "ws_2", "r"), dry_run=False)
    await containing(store).freeze(Asked("operator/first", "", "ws_2", "r"), dry_run=False)
    assert store.frozen == [("ws_1", "api_key:key_1"), ("ws_2", "operator:operator/first")]


@pytest.mark.promise("P27")
@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "manage.read_audit"}, {"purpose": "manage.revoke_api_keys"}, {"audience": ("oauth/eu",)},
        {"consumer": "oauth/worker"}, {"issuer": "oauth/coordinator"},
    ],
)  # fmt: skip
async def test_a_grant_for_something_else_freezes_and_revokes_nothing(changes: dict[str, Any]) -> None:
    store = Store()
    with pytest.raises(GrantError):
        await containing(store, **changes).freeze(Asked("gateway/edge", "token", "", "r"), dry_run=False)
    with pytest.raises(GrantError):
        wrong = changes if "purpose" not in changes else {"purpose": "manage.freeze"}
        await containing(store, **wrong).revoke_api_keys(Asked("gateway/edge", "token", "", "r"), dry_run=False)
    assert store.frozen == []


async def test_an_operator_who_names_no_workspace_is_told_so() -> None:
    with pytest.raises(MalformedError):
        await containing(Store()).freeze(Asked("operator/first", "", "", "r"), dry_run=False)
