"""What tokens are asked for with: assertions that verify, exchanges, own requests, and materials that do not do."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from authpipe_oauth_worker.asking import ask
from authpipe_oauth_worker.domain.words import Endpoints, Job, Renewal
from authpipe_oauth_worker.errors import MaterialError
from authpipe_providers import Assertion, Dialect, TwoStep
from authpipe_sensitive import Secret
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
TOKEN = "https://as.example/token"


def job(renewal: Renewal, **dialect: Any) -> Job:
    endpoints = Endpoints(TOKEN, "", "client_secret_basic", frozenset({"as.example"}), dialect=Dialect(**dialect))
    return Job(
        workspace="ws",
        connection="con",
        config="pc",
        provider="as.example",
        endpoints=endpoints,
        client_id="client",
        client_grant="g",
        credential_grant="g",
        fence=1,
        request_id="r",
        scopes=("one", "two"),
        renewal=renewal,
    )


def brought(**values: object) -> Secret:
    return Secret(json.dumps(values).encode())


def plain(form: Any) -> dict[str, str]:
    return {name: bytes(v.expose()).decode() if isinstance(v, Secret) else v for name, v in form.items()}


def pem(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


@pytest.fixture(scope="module")
def keys() -> dict[str, Any]:
    return {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
    }


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_an_assertion_verifies_with_the_public_key_and_says_who_what_and_until_when(
    algorithm: str, keys: dict[str, Any]
) -> None:
    material = {"issuer": "the-service", "subject": "ada", "private_key": pem(keys[algorithm]), "key_id": "k1"}
    made = ask(job(Renewal.JWT_BEARER), brought(**material), NOW)
    form = plain(made.form)
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert form["scope"] == "one two"
    assert isinstance(made.form["assertion"], Secret)
    public = keys[algorithm].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    imported = {"RS256": RSAKey, "ES256": ECKey}[algorithm].import_key(public)
    found = jwt.decode(form["assertion"], imported, algorithms=[algorithm])
    assert found.header == {"alg": algorithm, "typ": "JWT", "kid": "k1"}
    claims = dict(found.claims)
    assert len(claims.pop("jti")) >= 16
    issued = int(NOW.timestamp())
    assert claims == {"iss": "the-service", "sub": "ada", "aud": TOKEN, "iat": issued, "exp": issued + 300}
    again = ask(job(Renewal.JWT_BEARER), brought(**material), NOW)
    assert plain(again.form)["assertion"] != form["assertion"], "each is used once"


def test_an_entry_says_whom_an_assertion_is_for_how_long_and_whether_it_carries_the_scopes(
    keys: dict[str, Any],
) -> None:
    rules = Assertion("https://as.example/audience", 60, scope_claim=True)
    material = {"issuer": "the-service", "private_key": pem(keys["ES256"])}
    form = plain(ask(job(Renewal.JWT_BEARER, assertion=rules), brought(**material), NOW).form)
    assert "scope" not in form
    public = keys["ES256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(form["assertion"], ECKey.import_key(public), algorithms=["ES256"]).claims
    issued = int(NOW.timestamp())
    assert (claims["aud"], claims["exp"], claims["scope"], claims["sub"]) == (
        "https://as.example/audience",
        issued + 60,
        "one two",
        "the-service",
    )


def test_an_exchange_carries_the_subject_token_as_a_secret() -> None:
    made = ask(job(Renewal.TOKEN_EXCHANGE, resource="https://api.example/"), brought(subject_token="theirs"), NOW)
    assert isinstance(made.form["subject_token"], Secret)
    assert plain(made.form) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "theirs",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "resource": "https://api.example/",
        "scope": "one two",
    }


def test_what_a_client_is_needs_nothing_more() -> None:
    made = ask(job(Renewal.CLIENT_CREDENTIALS, token_parameters=(("audience", "api"),)), brought(), NOW)
    assert plain(made.form) == {"audience": "api", "grant_type": "client_credentials", "scope": "one two"}


def test_an_own_request_is_filled_in_and_what_is_filled_in_is_a_secret() -> None:
    own = TwoStep("POST", True, (("X-Key", "Key {key}"), ("X-Version", "2")), (("account", "{account}"),))
    made = ask(job(Renewal.TWO_STEP, two_step=own), brought(key='k"', account='a"c'), NOW)
    assert made.request is not None
    method, url, headers, body = made.request
    assert (method, url) == ("POST", TOKEN)
    assert isinstance(headers["x-key"], Secret)
    assert plain(headers) == {"x-key": 'Key k"', "x-version": "2", "content-type": "application/json"}
    assert body is not None
    assert json.loads(bytes(body.expose())) == {"account": 'a"c'}, "what is brought stays in its place"
    form = own._replace(json_body=False)
    made = ask(job(Renewal.TWO_STEP, two_step=form), brought(key="k", account="a&b=c"), NOW)
    assert made.request is not None
    assert made.request[3] is not None
    assert bytes(made.request[3].expose()) == b"account=a%26b%3Dc"


@pytest.mark.parametrize(
    ("renewal", "material"),
    [
        (Renewal.JWT_BEARER, b'{"issuer": "x"}'),
        (Renewal.JWT_BEARER, b'{"issuer": "x", "private_key": "no key"}'),
        (Renewal.TOKEN_EXCHANGE, b"{}"),
        (Renewal.TWO_STEP, b"{}"),
        (Renewal.REFRESH_TOKEN, b"{}"),
        (Renewal.CLIENT_CREDENTIALS, b"[]"),
        (Renewal.CLIENT_CREDENTIALS, b'{"a": 1}'),
        (Renewal.CLIENT_CREDENTIALS, b"\xff"),
    ],
)
def test_a_material_that_does_not_do_is_told_without_what_stands_in_it(renewal: Renewal, material: bytes) -> None:
    with pytest.raises(MaterialError) as caught:
        ask(job(renewal), Secret(material), NOW)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
