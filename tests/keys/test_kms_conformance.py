"""One suite over every kind of a customer's KMS: what it wraps it unwraps, bound to its context, and each no is the right one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from authpipe_keyservice.domain.customer_keys import Binding, BindingState, Kms, context_of, prove
from authpipe_keyservice.errors import (
    CustomerKeyLocatorError,
    CustomerKeyUnavailableError,
    CustomerKeyUnfitError,
    CustomerKmsUnavailableError,
    KeyTamperedError,
)
from authpipe_keyservice.kms import Connector, KmsSettings
from authpipe_keyservice.kms.connect import FIELDS, require_locator

CONTEXT = context_of("installation", "eu", "user-credentials", "ws_a", "ws_a/1")
PAYLOAD = bytes(range(60))
WIRE = ["aws", "google", "azure", "transit"]


def no_token(_: object) -> Any:
    raise AssertionError("No token is used here.")


@pytest.fixture
def vendor(request: pytest.FixtureRequest, vendors: Any) -> Any:
    return vendors[request.param]


@pytest.fixture
async def kms(vendor: Any) -> AsyncIterator[Kms]:
    settings = KmsSettings(**vendor.settings, timeout_seconds=3)
    key = Connector(settings, no_token)(Binding("ws_a", "ck_1", vendor.name, vendor.locator, BindingState.PRIMARY))
    yield key
    await key.close()


def forms(*values: str) -> Callable[..., Any]:
    return pytest.mark.parametrize("vendor", list(values), indirect=True)


@pytest.mark.promise("P18")
@forms(*WIRE)
async def test_a_key_proves_itself_and_names_itself(vendor: Any, kms: Kms) -> None:
    await prove(kms, CONTEXT, os.urandom)
    assert await kms.describe() in {*vendor.locator.values(), "transit/tokens"}
    wrapped = await kms.wrap(PAYLOAD, CONTEXT)
    assert PAYLOAD not in wrapped
    assert await kms.unwrap(wrapped, CONTEXT) == PAYLOAD
    assert await kms.wrap(PAYLOAD, CONTEXT) != wrapped, "no two are alike"


@pytest.mark.promise("P18")
@forms(*WIRE)
@pytest.mark.parametrize("name", list(CONTEXT))
async def test_under_another_installation_region_domain_workspace_or_dek_it_does_not_open(kms: Kms, name: str) -> None:
    wrapped = await kms.wrap(PAYLOAD, CONTEXT)
    with pytest.raises(KeyTamperedError):
        await kms.unwrap(wrapped, {**CONTEXT, name: "another"})


@forms(*WIRE)
async def test_what_was_changed_or_cut_does_not_open(vendor: Any, kms: Kms) -> None:
    wrapped = await kms.wrap(PAYLOAD, CONTEXT)
    for changed in (wrapped[:-1] + bytes([wrapped[-1] ^ 1]), wrapped[: len(wrapped) // 2], wrapped + wrapped):
        with pytest.raises(KeyTamperedError):
            await kms.unwrap(changed, CONTEXT)
    assert await kms.unwrap(wrapped, CONTEXT) == PAYLOAD


@pytest.mark.promise("P18")
@pytest.mark.case(27)
@forms(*WIRE)
@pytest.mark.parametrize("act", ["disabled", "deleted", "denied"])
async def test_a_key_that_its_owner_takes_away_is_withdrawn_and_opens_again_when_it_is_given_back(
    vendor: Any, kms: Kms, act: str
) -> None:
    if act not in vendor.can:
        assert act in {"disabled", "deleted"}, "a permission can be taken away everywhere"
        return
    wrapped = await kms.wrap(PAYLOAD, CONTEXT)
    vendor.turn(**{act: True})
    try:
        for _ in range(5):  # a no is no failure: no breaker opens
            with pytest.raises(CustomerKeyUnavailableError):
                await kms.unwrap(wrapped, CONTEXT)
        if vendor.name != "azure":  # to wrap with an RSA key needs its public half alone, which the library keeps
            with pytest.raises(CustomerKeyUnavailableError):
                await kms.wrap(PAYLOAD, CONTEXT)
    finally:
        vendor.turn(**{act: False})
    assert await kms.unwrap(wrapped, CONTEXT) == PAYLOAD


@pytest.mark.case(27)
@forms(*WIRE)
@pytest.mark.parametrize("act", ["throttle", "error", "hang"])
async def test_a_kms_that_throttles_fails_or_hangs_is_away_and_not_withdrawn(vendor: Any, kms: Kms, act: str) -> None:
    wrapped = await kms.wrap(PAYLOAD, CONTEXT)
    assert act in vendor.can
    vendor.turn(**{act: 20.0 if act == "hang" else True})
    try:
        began = time.monotonic()
        for _ in range(4):
            with pytest.raises(CustomerKmsUnavailableError):
                await kms.unwrap(wrapped, CONTEXT)
        # Three that come to nothing are enough: the breaker is open, and nobody waits any more.
        again = time.monotonic()
        with pytest.raises(CustomerKmsUnavailableError):
            await kms.unwrap(wrapped, CONTEXT)
        assert time.monotonic() - again < 0.5
        assert again - began < 4 * 3 + 1, "each wait is bounded"
    finally:
        vendor.turn(**{act: 0.0 if act == "hang" else False})
    ends = time.monotonic() + 40
    while True:
        try:
            assert await kms.unwrap(wrapped, CONTEXT) == PAYLOAD
            break
        except CustomerKmsUnavailableError:
            assert time.monotonic() < ends
            await asyncio.sleep(0.5)


@forms("aws", "google", "azure")
async def test_a_key_that_gives_back_something_else_is_not_fit(vendor: Any, kms: Kms) -> None:
    vendor.turn(nonsense=True)
    try:
        with pytest.raises((CustomerKeyUnfitError, KeyTamperedError)):
            await prove(kms, CONTEXT, os.urandom)
    finally:
        vendor.turn(nonsense=False)


async def test_a_key_that_binds_no_context_is_not_fit() -> None:
    class Careless:
        async def wrap(self, payload: bytes, _: object) -> bytes:
            return payload[::-1]

        async def unwrap(self, wrapped: bytes, _: object) -> bytes:
            return wrapped[::-1]

        async def describe(self) -> str:
            return "careless"

        async def close(self) -> None: ...

    with pytest.raises(CustomerKeyUnfitError):
        await prove(cast("Kms", Careless()), CONTEXT, lambda size: bytes(range(size)))


@pytest.mark.parametrize(
    ("provider", "changes", "field"),
    [
        ("gcp", {}, "provider"),
        ("aws", {"key_arn": "arn:aws:s3:::bucket"}, "key_arn"),
        ("aws", {"external_id": None}, "external_id"),
        ("aws", {"endpoint": "https://169.254.169.254"}, "unknown"),
        ("google", {"key_name": "projects/a/../b"}, "key_name"),
        ("azure", {"key_id": "https://169.254.169.254/keys/tokens/" + "0" * 32}, "key_id"),
        ("azure", {"key_id": "https://evil.example/keys/tokens/" + "0" * 32}, "key_id"),
        ("azure", {"key_id": "http://localhost/keys/tokens/" + "0" * 32}, "key_id"),
        ("transit", {"address": "https://127.0.0.1:1"}, "address"),
        ("transit", {"address": "http://localhost"}, "address"),
        ("transit", {"credential": "another"}, "credential"),
        ("transit", {"mount": "../sys"}, "mount"),
    ],
)
async def test_a_locator_points_nowhere_but_where_the_installation_allows(
    vendors: Any, provider: str, changes: dict[str, str | None], field: str
) -> None:
    vendor = vendors.get(provider) or vendors["aws"]
    locator = {name: value for name, value in {**vendor.locator, **changes}.items() if value is not None}
    with pytest.raises(CustomerKeyLocatorError) as refused:
        Connector(KmsSettings(**vendor.settings), no_token)(
            Binding("ws_a", "ck_1", provider, locator, BindingState.PRIMARY)
        )
    assert refused.value.metadata["field"] == field


@pytest.mark.parametrize("provider", sorted(FIELDS))
def test_a_field_with_a_line_break_or_too_much_is_refused(provider: str) -> None:
    with pytest.raises(CustomerKeyLocatorError):
        require_locator(provider, {name.rstrip("?"): "x\n" for name in FIELDS[provider]})


async def test_a_key_in_transit_that_could_be_exported_is_refused(vendors: Any) -> None:
    vendor = vendors["transit"]
    locator = {**vendor.locator, "key_name": "exportable"}
    key = Connector(KmsSettings(**vendor.settings), no_token)(
        Binding("ws_a", "ck_1", "transit", locator, BindingState.PRIMARY)
    )
    with pytest.raises(CustomerKeyUnavailableError):
        await key.describe()
    await key.close()
