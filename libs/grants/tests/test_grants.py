"""Grants and sealed keys: every way of forging one, and mutants of what checks them."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from authpipe_grants import (
    ConsumerKey,
    Grant,
    GrantError,
    Issuer,
    Kind,
    ReleasedKey,
    TrustAnchor,
    Verifier,
    seal_to_consumer,
)
from authpipe_sensitive import Secret
from authpipe_testing.ca import CertificateAuthority
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

CLAIMS: dict[str, Any] = {
    "audience": ("user-credentials/eu",),
    "consumer": "gateway/edge",
    "consumer_thumbprint": "thumb",
    "purpose": "serve",
    "workspace": "ws_a",
    "connections": ("con_a",),
    "classes": (1,),
    "actor": "api_key:k",
    "request_id": "req_1",
}


class Stage:
    """A CA with a signer under it, and a foreign CA beside it."""

    def __init__(self, folder: Path) -> None:
        self.ca = CertificateAuthority(folder, "ours")
        self.foreign = CertificateAuthority(folder, "foreign")
        self.folder = folder
        # As the tests begin, not as they are collected: certificates begin five minutes ago.
        self.now = dt.datetime.now(dt.UTC)
        self.time = self.now.timestamp()
        self.anchor = TrustAnchor(self.ca.certificate_file.read_bytes(), "test")
        self.verifier = Verifier(self.anchor, lambda: self.time)

    def leaf(
        self, name: str = "gateway/authority", ca: CertificateAuthority | None = None, **more: Any
    ) -> tuple[bytes, bytes]:
        made = (ca or self.ca).issue(
            self.folder, name.replace("/", "-"), common_name="x", uris=(f"spiffe://test/{name}",), **more
        )
        return made.certificate.read_bytes(), made.key.read_bytes()

    def issuer(self, name: str = "gateway/authority", **more: Any) -> Issuer:
        return Issuer(*self.leaf(name, **more), "test", lambda: self.time)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_grant_says_what_was_signed_and_who_signed(stage: Stage) -> None:
    grant = stage.verifier.verify(stage.issuer().issue(**CLAIMS))
    assert (grant.issuer, grant.workspace, grant.connections, grant.classes) == (
        "gateway/authority",
        "ws_a",
        ("con_a",),
        (1,),
    )


@pytest.mark.case(9)
def test_a_grant_ends_after_its_minute_also_when_it_was_verified_before(stage: Stage) -> None:
    token = stage.issuer().issue(**CLAIMS)
    stage.verifier.verify(token)
    stage.time += 60
    with pytest.raises(GrantError):
        stage.verifier.verify(token)
    with pytest.raises(ValueError, match="60"):
        stage.issuer().issue(**CLAIMS, life_seconds=61)


@pytest.mark.case(9)
def test_a_grant_from_the_future_is_refused(stage: Stage) -> None:
    token = stage.issuer().issue(**CLAIMS)
    stage.time -= 31
    with pytest.raises(GrantError):
        stage.verifier.verify(token)


@pytest.mark.case(9)
def test_a_signer_of_another_ca_or_with_an_ended_certificate_is_nobody(stage: Stage) -> None:
    with pytest.raises(GrantError):
        stage.verifier.verify(stage.issuer(ca=stage.foreign).issue(**CLAIMS))
    ended = stage.issuer(life=dt.timedelta(minutes=-4))
    with pytest.raises(GrantError):
        stage.verifier.verify(ended.issue(**CLAIMS))


@pytest.mark.case(9)
def test_a_signer_does_not_pass_for_another(stage: Stage) -> None:
    token = stage.issuer("vault").issue(**CLAIMS)
    assert stage.verifier.verify(token).issuer == "vault"
    certificate, key = stage.leaf("vault")
    forged = sign(certificate, key, {"iss": "gateway/authority"}, stage)
    with pytest.raises(GrantError):
        stage.verifier.verify(forged)


def sign(
    certificate: bytes, key: bytes, claims: dict[str, Any], stage: Stage, header: dict[str, Any] | None = None
) -> str:
    """Signs by hand, as an attacker does who is not held to our own code."""
    honest = stage.verifier.verify(stage.issuer().issue(**CLAIMS)).to_claims()
    chain = [
        base64.b64encode(each.public_bytes(Encoding.DER)).decode()
        for each in x509.load_pem_x509_certificates(certificate)
    ]
    full = {"alg": "ES256", "typ": "txntoken+jwt", "x5c": chain, **(header or {})}
    full = {name: value for name, value in full.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=["ES256", "HS256"])
    registry.max_header_length = 20_000
    signing: Any = OctKey.import_key(bytes(range(64))) if full["alg"] == "HS256" else ECKey.import_key(key)
    return jws.serialize_compact(full, json.dumps({**honest, **claims}).encode(), signing, registry=registry)


@pytest.mark.case(9)
@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"alg": "HS256"},
        {"x5c": []},
        {"x5c": None},
        {"x5c": ["not base64"]},
        {"kid": "other"},
        {"jku": "https://evil.example/keys"},
    ],
)
def test_another_header_is_refused(header: dict[str, Any], stage: Stage) -> None:
    certificate, key = stage.leaf()
    with pytest.raises(GrantError):
        stage.verifier.verify(sign(certificate, key, {}, stage, header))


@pytest.mark.case(9)
@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 9_999_999_999},
        {"surprise": 1},
        {"aud": "user-credentials/eu"},
        {"tctx": {}},
        {"iat": "now"},
        {"exp": True},
        {"scope": None},
    ],
)
def test_claims_that_are_missing_unknown_or_of_another_type_are_refused(claims: dict[str, Any], stage: Stage) -> None:
    certificate, key = stage.leaf()
    with pytest.raises(GrantError):
        stage.verifier.verify(sign(certificate, key, claims, stage))


@pytest.mark.case(9)
def test_no_single_changed_character_of_a_grant_passes(stage: Stage) -> None:
    token = stage.issuer().issue(**CLAIMS)
    grant = stage.verifier.verify(token)
    for position in range(0, len(token), 7):
        letter = "A" if token[position] != "A" else "B"
        changed = token[:position] + letter + token[position + 1 :]
        try:
            again = stage.verifier.verify(changed)
        except GrantError:
            continue
        # The last characters of base64 have unused bits: the same bytes may be written in two ways.
        assert dataclasses.replace(again) == grant


def material(byte: int = 7) -> ReleasedKey:
    return ReleasedKey(1, 1, bytes(32), Secret(bytes([byte]) * 76))


class Sealing:
    """keyservice's side."""

    def __init__(self, stage: Stage, name: str = "keyservice/user-credentials") -> None:
        certificate, key = stage.leaf(name)
        loaded = load_pem_private_key(key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self.key = loaded
        self.chain = tuple(each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(certificate))


@pytest.mark.promise("P10")
def test_sealed_keys_open_for_their_consumer_as_the_answer_to_its_challenge(stage: Stage) -> None:
    consumer, service = ConsumerKey(), Sealing(stage)
    challenge = consumer.new_challenge()
    bundle = seal_to_consumer(
        consumer.public, challenge, Kind.WRITE_KEYS, [(3, material())], service.key, service.chain
    )
    name = "keyservice/user-credentials"
    keys = consumer.open_keys(bundle, challenge, Kind.WRITE_KEYS, stage.anchor, name, stage.now)
    assert keys[3].material == Secret(b"\x07" * 76)
    attempts: list[tuple[ConsumerKey, bytes, Kind, str]] = [
        (ConsumerKey(), challenge, Kind.WRITE_KEYS, name),
        (consumer, consumer.new_challenge(), Kind.WRITE_KEYS, name),
        (consumer, challenge, Kind.RECORD_KEYS, name),
        (consumer, challenge, Kind.WRITE_KEYS, "keyservice/client-secrets"),
    ]
    for who, question, kind, service_name in attempts:
        with pytest.raises(GrantError):
            who.open_keys(bundle, question, kind, stage.anchor, service_name, stage.now)


@pytest.mark.promise("P10")
def test_a_store_that_was_taken_over_cannot_hand_out_a_write_key_of_its_own_making(stage: Stage) -> None:
    """HPKE's base mode lets anyone seal to a public key; the signature is what says who did."""
    consumer, vault, service = ConsumerKey(), Sealing(stage, "vault"), Sealing(stage)
    challenge = consumer.new_challenge()
    name = "keyservice/user-credentials"
    own = seal_to_consumer(consumer.public, challenge, Kind.WRITE_KEYS, [(0, material())], vault.key, vault.chain)
    with pytest.raises(GrantError):
        consumer.open_keys(own, challenge, Kind.WRITE_KEYS, stage.anchor, name, stage.now)
    # With keyservice's certificate beside its own signature.
    passed_off = dataclasses.replace(own, chain=service.chain)
    with pytest.raises(GrantError):
        consumer.open_keys(passed_off, challenge, Kind.WRITE_KEYS, stage.anchor, name, stage.now)


def test_a_grant_reads_only_what_it_wrote() -> None:
    with pytest.raises(GrantError):
        Grant.from_claims({})
