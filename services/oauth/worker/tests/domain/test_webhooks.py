"""Signatures of webhooks, with the examples that Providers and Standard Webhooks publish."""

from __future__ import annotations

import base64
import hashlib
import hmac
import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

import pytest
from authpipe_consumer.words import Opened, Want
from authpipe_envelope import RecordClass
from authpipe_oauth_worker import signatures
from authpipe_oauth_worker.domain.webhooks import Arrived, Webhooks
from authpipe_oauth_worker.errors import WebhookSchemeError
from authpipe_oauth_worker.signatures import matches
from authpipe_providers import WebhookScheme
from authpipe_sensitive import Secret
from hypothesis import given
from hypothesis import strategies as st

GITHUB = WebhookScheme("sha256", "hex", "x-hub-signature-256", "sha256=")
STANDARD = WebhookScheme(
    algorithm="sha256",
    encoding="base64",
    signature_header="webhook-signature",
    prefix="v1,",
    separator=" ",
    signed="{id}.{timestamp}.{body}",
    timestamp_header="webhook-timestamp",
    id_header="webhook-id",
    tolerance_seconds=300,
    secret_prefix="whsec_",
    secret_base64=True,
)
STANDARD_SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


class Vault:
    """Has one webhook secret, and counts who asks."""

    def __init__(self, secret: bytes) -> None:
        self.secret, self.opened = secret, 0

    async def open(self, wants: Sequence[Want]) -> list[Opened]:
        self.opened += 1
        assert wants[0].record_class is RecordClass.WEBHOOK_SECRET
        return [Opened(Secret(self.secret), RecordClass.WEBHOOK_SECRET, 1, "hub", bytes(32), None, "…", 0)]


async def verify(
    scheme: WebhookScheme, secret: bytes, headers: dict[str, str], body: bytes, now: float = 1614265330
) -> str:
    webhooks = Webhooks(Vault(secret), matches, lambda: now)  # type: ignore[arg-type]
    return await webhooks.verify(Arrived("ws", "con", "g", "r", headers, body), scheme)


async def test_the_published_examples_fit() -> None:
    digest = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret = b"It's a Secret to Everybody"
    assert await verify(GITHUB, secret, {"x-hub-signature-256": digest}, b"Hello, World!") == ""
    assert await verify(GITHUB, secret, {"x-hub-signature-256": digest.upper()}, b"") == "SIGNATURE_MISSING"
    assert await verify(STANDARD, STANDARD_SECRET, STANDARD_HEADERS, STANDARD_BODY) == ""


@pytest.mark.parametrize(
    ("change", "body", "reason"),
    [
        ({}, b'{"test": 2432232315}', "SIGNATURE_DIFFERS"),
        ({"webhook-id": "msg_another"}, STANDARD_BODY, "SIGNATURE_DIFFERS"),
        ({"webhook-timestamp": "1614265331"}, STANDARD_BODY, "SIGNATURE_DIFFERS"),
        ({"webhook-timestamp": "now"}, STANDARD_BODY, "TIMESTAMP_MISSING"),
        ({"webhook-timestamp": "-1614265330"}, STANDARD_BODY, "TIMESTAMP_MISSING"),
        ({"webhook-timestamp": "\u0661\u0666"}, STANDARD_BODY, "TIMESTAMP_MISSING"),
        ({"webhook-signature": ""}, STANDARD_BODY, "SIGNATURE_MISSING"),
        ({"webhook-signature": "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}, STANDARD_BODY, "SIGNATURE_MISSING"),
        ({"webhook-signature": "v1,é"}, STANDARD_BODY, "SIGNATURE_DIFFERS"),
        ({"webhook-signature": "v1,x " * 17}, STANDARD_BODY, "SIGNATURE_MISSING"),
    ],
)
async def test_whatever_is_changed_it_is_not_believed(change: dict[str, str], body: bytes, reason: str) -> None:
    assert await verify(STANDARD, STANDARD_SECRET, STANDARD_HEADERS | change, body) == reason


async def test_one_of_several_signatures_is_enough() -> None:
    several = "v1,AAAA " + STANDARD_HEADERS["webhook-signature"] + " v1a,BBBB"
    headers = STANDARD_HEADERS | {"webhook-signature": several}
    assert await verify(STANDARD, STANDARD_SECRET, headers, STANDARD_BODY) == ""


@pytest.mark.parametrize("seconds", [301, -301])
async def test_what_was_sent_long_ago_or_will_be_is_told_only_where_it_is_genuine(seconds: int) -> None:
    now = 1614265330 + seconds
    assert await verify(STANDARD, STANDARD_SECRET, STANDARD_HEADERS, STANDARD_BODY, now) == "TIMESTAMP_TOO_OLD"
    assert await verify(STANDARD, STANDARD_SECRET, STANDARD_HEADERS, b"{}", now) == "SIGNATURE_DIFFERS"


@pytest.mark.parametrize(
    "scheme",
    [
        WebhookScheme("md5", "hex", "x"),
        WebhookScheme("sha256", "base32", "x"),
        WebhookScheme("sha256", "hex", ""),
        WebhookScheme("sha256", "hex", "x", signed="nothing of it"),
        WebhookScheme("sha256", "hex", "x", signed="{timestamp}{body}"),
        WebhookScheme("sha256", "hex", "x", tolerance_seconds=5),
        WebhookScheme("sha256", "hex", "x", timestamp_header="t", tolerance_seconds=5),
    ],
    ids=str,
)
async def test_a_scheme_that_proves_nothing_is_refused_before_anything_is_opened(scheme: WebhookScheme) -> None:
    vault = Vault(b"secret")
    webhooks = Webhooks(vault, matches, lambda: 0.0)  # type: ignore[arg-type]
    with pytest.raises(WebhookSchemeError):
        await webhooks.verify(Arrived("ws", "con", "g", "r", {"x": "00", "t": "0"}, b""), scheme)
    assert vault.opened == 0


async def test_a_secret_that_is_not_written_as_the_scheme_says_is_told() -> None:
    with pytest.raises(WebhookSchemeError):
        await verify(STANDARD, b"whsec_not base64!", STANDARD_HEADERS, STANDARD_BODY)


@given(secret=st.binary(min_size=1, max_size=80), message=st.binary(max_size=300), flip=st.integers(0, 255))
def test_a_signature_fits_its_own_message_and_no_other(secret: bytes, message: bytes, flip: int) -> None:
    for algorithm in ("sha256", "sha1", "sha512"):
        mac = hmac.new(secret, message, getattr(hashlib, algorithm)).digest()
        for encoding, written in (("hex", mac.hex()), ("base64", base64.b64encode(mac).decode())):
            scheme = WebhookScheme(algorithm, encoding, "x")
            assert matches(Secret(secret), scheme, message, [written])
            assert not matches(Secret(secret), scheme, message + b"!", [written])
            other = bytes([mac[0] ^ (flip or 1)]) + mac[1:]
            wrong = other.hex() if encoding == "hex" else base64.b64encode(other).decode()
            assert not matches(Secret(secret), scheme, message, [wrong, ""])


async def test_the_attack_sees_signatures_that_are_compared_by_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    source = textwrap.dedent(inspect.getsource(matches))
    control = "hmac.compare_digest(expected, given)"
    assert source.count(control) == 1, "the control is not written like this any more"
    namespace: dict[str, Any] = dict(vars(signatures))
    exec(source.replace(control, "expected.startswith(given)"), namespace)  # our own source, changed
    monkeypatch.setitem(globals(), "matches", namespace["matches"])
    cut = STANDARD_HEADERS | {"webhook-signature": "v1,g0hM"}
    assert await verify(STANDARD, STANDARD_SECRET, cut, STANDARD_BODY) == "", "the mutant believes it"
    monkeypatch.undo()
    assert await verify(STANDARD, STANDARD_SECRET, cut, STANDARD_BODY) == "SIGNATURE_DIFFERS"
