"""Who may write: a fence is what coordinator signed, on every kind of write."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from authpipe_envelope import Header
from authpipe_grants import Grant, GrantError
from authpipe_recordstore.domain.records import Put, Records
from authpipe_recordstore.domain.words import Record, Ref
from authpipe_recordstore.domain.writing import Write

ACCESS, ANSWER = Ref("ws", "con", 1), Ref("ws", "con", 8)
DATA = Header(1, bytes(32), bytes(32)).encode() + bytes(80)
RECORD = Record(ACCESS, 2, DATA, "p", bytes(32), "…", None, fence=3)
GRANT = Grant(
    issuer="oauth/coordinator", audience=("user-credentials/eu",), consumer="oauth/worker", consumer_thumbprint="t",
    purpose="refresh", workspace="ws", connections=("con",), classes=(1, 2, 8), fence=3, forced=False, actor="a",
    request_id="r", grant_id="g", issued_at=0, expires_at=60,
)  # fmt: skip


class Outside:
    """The store's tables and keyservice; notes what reached them."""

    def __init__(self) -> None:
        self.puts: list[tuple[list[Record], list[tuple[Ref, int]]]] = []

    async def put(self, writes: Sequence[Write]) -> list[None]:
        self.puts += [(list(each.records), list(each.ended)) for each in writes]
        return [None] * len(writes)

    async def acknowledge(self, *_: Any) -> None:
        return None


async def put(record: Record | None, consumed: Ref | None, **changes: Any) -> Outside:
    outside = Outside()
    records = Records(outside, outside, lambda _: dataclasses.replace(GRANT, **changes), outside)  # type: ignore[arg-type]
    asked = Put([record] if record else [], [consumed] if consumed else [], "token", "r")
    (refusal,) = await records.put("oauth/worker", [asked], 0)
    if refusal is not None:
        assert not outside.puts
        raise refusal
    return outside


async def test_a_write_under_its_grant_is_stored_and_what_it_ends_goes_with_its_fence() -> None:
    assert (await put(RECORD, ANSWER)).puts == [([RECORD], [(ANSWER, 3)])]
    assert (await put(None, ANSWER)).puts == [([], [(ANSWER, 3)])]


@pytest.mark.case(10)
@pytest.mark.parametrize("claimed", [0, 2, 4, 999])
async def test_a_writer_cannot_claim_another_fence_than_its_grant_has(claimed: int) -> None:
    with pytest.raises(GrantError):
        await put(RECORD._replace(fence=claimed), None)


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "serve"}, {"consumer": "gateway/edge"}, {"workspace": "other"}, {"connections": ("other",)},
        {"classes": (2,)},
    ],
)  # fmt: skip
async def test_a_grant_for_something_else_writes_and_ends_nothing(changes: dict[str, Any]) -> None:
    for record, consumed in ((RECORD, None), (None, ANSWER)):
        with pytest.raises(GrantError):
            await put(record, consumed, **changes)


async def test_only_transient_records_can_be_ended_by_a_write() -> None:
    with pytest.raises(GrantError):
        await put(None, ACCESS)


async def test_a_write_without_a_grant_for_it_is_refused_beside_one_that_has_it() -> None:
    outside = Outside()
    grants = {"good": GRANT, "bad": dataclasses.replace(GRANT, purpose="serve")}
    records = Records(outside, outside, grants.__getitem__, outside)  # type: ignore[arg-type]
    asked = [Put([RECORD], [], each, "r") for each in ("bad", "good", "bad")]
    answers = await records.put("oauth/worker", asked, 0)
    assert [each and each.reason for each in answers] == [GrantError.reason, None, GrantError.reason]
    assert outside.puts == [([RECORD], [])]
