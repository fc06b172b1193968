"""Proofs of having a key (RFC 9449), against what the RFC has published, and as a server would look at them."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from authpipe_oauth_worker.domain.nonces import Nonces
from authpipe_oauth_worker.proofs import Proofs
from authpipe_sensitive import Secret
from joserfc import jws
from joserfc.jwk import ECKey

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
# RFC 9449, sections 4.1, 6.1 and 7.1: the key of its examples, its thumbprint, a token and the hash of it.
PUBLIC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
    "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
}
THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
TOKEN, ATH = b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU", "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def look(proof: Secret) -> tuple[dict[str, object], dict[str, object]]:
    """Gives head and claims, once the signature is that of the key in the head."""
    text = proof.expose().decode()
    jwk = jws.extract_compact(text.encode()).headers()["jwk"]
    found = jws.deserialize_compact(text, ECKey.import_key(jwk), algorithms=["ES256"])
    assert found.payload is not None
    return dict(found.headers()), json.loads(found.payload)


def test_a_key_is_named_as_in_the_rfc() -> None:
    assert Proofs().thumbprint(Secret(json.dumps(PUBLIC).encode())) == THUMBPRINT


def test_a_proof_says_which_request_it_is_for_and_no_private_key_is_in_it() -> None:
    proofs = Proofs()
    key = proofs.new_key()
    url = "https://api.example:8443/v1/things?a=secret-of-the-query#x"
    head, claims = look(proofs.proof(key, "POST", url, NOW, nonce="n-1", token=Secret(TOKEN)))
    public = json.loads(bytes(key.expose()))
    private = public.pop("d")
    assert head == {"typ": "dpop+jwt", "alg": "ES256", "jwk": public}
    assert private not in json.dumps(head)
    assert len(str(claims.pop("jti"))) >= 20
    assert claims == {
        "htm": "POST",
        "htu": "https://api.example:8443/v1/things",
        "iat": int(NOW.timestamp()),
        "nonce": "n-1",
        "ath": ATH,
    }


def test_no_two_proofs_are_the_same_and_what_is_not_known_is_not_said() -> None:
    proofs = Proofs()
    key = proofs.new_key()
    first, second = (look(proofs.proof(key, "GET", "https://a.example/", NOW))[1] for _ in range(2))
    assert first["jti"] != second["jti"]
    assert set(first) == {"jti", "htm", "htu", "iat"}


def test_no_two_keys_are_the_same() -> None:
    proofs = Proofs()
    assert proofs.thumbprint(proofs.new_key()) != proofs.thumbprint(proofs.new_key())


def test_the_newest_nonce_of_each_server_counts_and_not_without_end() -> None:
    nonces = Nonces()
    nonces.note("https://A.example/token", "one")
    nonces.note("https://a.example/userinfo?x", "two")
    nonces.note("https://a.example/token", "")
    assert nonces.of("https://a.example/anything") == "two"
    assert nonces.of("https://a.example:8443/anything") == ""
    for number in range(1_000):
        nonces.note(f"https://{number}.example/", "x")
    assert nonces.of("https://a.example/") == ""


@pytest.mark.promise("P07")
def test_a_key_that_is_kept_cannot_be_printed() -> None:
    assert repr(Proofs().new_key()) == "Secret(redacted)"
