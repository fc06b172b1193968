"""Signatures on requests, against what AWS and others have published."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import re
from typing import Any
from urllib.parse import quote

import botocore.auth
import pytest
from authlib.oauth1.rfc5849 import client_auth
from authpipe_oauth_worker.domain.ports import Client
from authpipe_oauth_worker.domain.proxying import Outgoing
from authpipe_oauth_worker.errors import ClientKeyError, MaterialError, NotProxiableError
from authpipe_oauth_worker.signing import sign, sign_oauth1
from authpipe_providers import Dialect, Signing
from authpipe_sensitive import Secret
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from oauthlib import oauth1

NOW = dt.datetime(2017, 7, 12, 2, 41, 59, 559_000, dt.UTC)
ID = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"  # published, of nobody


def pair(name: str, secret: str) -> Secret:
    return Secret(f'{{"username":"{name}","password":"{secret}"}}'.encode())


def shown(outgoing: Outgoing) -> dict[str, bytes]:
    return {name: bytes(v.expose()) if isinstance(v, Secret) else v for name, v in outgoing.headers.items()}


def test_a_query_is_signed_as_in_the_example_that_binance_has_published() -> None:
    signing = Signing(
        "hmac",
        signed="{query}",
        headers=(("X-MBX-APIKEY", "{key}"),),
        query=(("timestamp", "{timestamp}"), ("signature", "{signature}")),
        time="milliseconds",
    )
    order = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000"
    url = f"https://api.example/api/v3/order?{order}"
    placed = sign(pair(ID, SECRET), signing, Outgoing("POST", url, {}), b"", NOW)
    assert placed.url == url, "what the signature is over is not moved"
    assert placed.query == Secret(
        b"timestamp=1499827319559&signature=c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
    )
    assert shown(placed) == {"x-mbx-apikey": ID.encode()}


@pytest.mark.parametrize("time", ["seconds", "milliseconds", "rfc3339"])
def test_a_signature_in_a_header_is_over_all_that_the_entry_names(time: str) -> None:
    signing = Signing(
        "hmac",
        "sha512",
        "base64",
        "base64",
        "{timestamp}\n{method} {host}{target} {body_hash}:{nonce}",
        (("X-Time", "{timestamp}"), ("X-Nonce", "{nonce}"), ("Authorization", "HMAC {key}:{signature}")),
        time=time,
        secret_base64=True,
    )
    secret = base64.b64encode(b"the-key-itself").decode()
    outgoing = Outgoing("PUT", "https://api.example:8443/v1/things?a=1", {"x-nonce": b"the caller's own"})
    seen = shown(sign(pair("id", secret), signing, outgoing, b"the body", NOW))
    digest = base64.b64encode(hashlib.sha512(b"the body").digest())
    message = b"%s\nPUT api.example:8443/v1/things?a=1 %s:%s" % (seen["x-time"], digest, seen["x-nonce"])
    expected = base64.b64encode(hmac.digest(b"the-key-itself", message, "sha512"))
    assert seen["authorization"] == b"HMAC id:" + expected
    assert len(seen["x-nonce"]) == 32
    assert seen["x-time"] == {
        "seconds": b"1499827319", "milliseconds": b"1499827319559", "rfc3339": b"2017-07-12T02:41:59Z"
    }[time]  # fmt: skip


@given(body=st.binary(max_size=60))
def test_what_is_filled_in_is_not_filled_in_again(body: bytes) -> None:
    signing = Signing("hmac", signed="{body}|{method}", headers=(("X-Sign", "{signature}"),))
    for tried in (body, body + b"{method}{key}"):
        seen = shown(sign(pair("id", "k"), signing, Outgoing("GET", "https://a.example/", {}), tried, NOW))
        assert seen["x-sign"].decode() == hmac.digest(b"k", tried + b"|GET", "sha256").hex()


def test_a_secret_that_is_not_base64_where_it_has_to_be_is_refused() -> None:
    signing = Signing("hmac", signed="{body}", headers=(("X-Sign", "{signature}"),), secret_base64=True)
    with pytest.raises(MaterialError):
        sign(pair("id", "nöt base64"), signing, Outgoing("GET", "https://a.example/", {}), b"", NOW)


@pytest.fixture
def in_2015(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the examples in AWS's documentation: their library takes it from the system."""
    moment = dt.datetime(2015, 8, 30, 12, 36, tzinfo=dt.UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: moment.replace(tzinfo=None))


@pytest.mark.usefixtures("in_2015")
def test_a_request_is_signed_as_in_the_example_of_the_documentation_of_aws() -> None:
    headers: dict[str, Any] = {"content-type": b"application/x-www-form-urlencoded; charset=utf-8"}
    url = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"
    signing = Signing("sigv4", service="iam", region="us-east-1")
    known = pair("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    seen = shown(sign(known, signing, Outgoing("GET", url, headers), b"", NOW))
    assert seen["x-amz-date"] == b"20150830T123600Z"
    assert seen["authorization"] == (
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        b"SignedHeaders=content-type;host;x-amz-date, "
        b"Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


@pytest.mark.usefixtures("in_2015")
def test_s3_is_told_that_a_body_is_not_signed_which_may_then_have_any_size() -> None:
    signing = Signing("sigv4", service="s3", region="us-east-1")
    outgoing = Outgoing("PUT", "https://bucket.s3.amazonaws.com/a%20key", {"content-length": b"5000000"})
    seen = shown(sign(pair("AKIDEXAMPLE", "secret"), signing, outgoing, b"", NOW))
    assert seen["x-amz-content-sha256"] == b"UNSIGNED-PAYLOAD"
    assert b"x-amz-content-sha256" in seen["authorization"]


def test_where_the_library_of_aws_is_not_installed_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("authpipe_oauth_worker.signing.importlib.import_module", missing)
    with pytest.raises(NotProxiableError):
        sign(
            pair("id", "k"),
            Signing("sigv4", service="iam", region="us-east-1"),
            Outgoing("GET", "https://a.example/", {}),
            b"",
            NOW,
        )


def test_oauth_1_is_signed_as_in_the_example_that_twitter_has_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_auth, "generate_nonce", lambda: "kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg")
    monkeypatch.setattr(client_auth, "generate_timestamp", lambda: "1318622958")
    client = Client("xvz1evFS4wEEPTGEFPHBog", Secret(b"kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw"), "oauth1")
    pair = (
        Secret(b"370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb"),
        Secret(b"LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE"),
    )
    signed = sign_oauth1(
        client,
        Dialect(signature_method="HMAC-SHA1"),
        "POST",
        "https://api.twitter.com/1.1/statuses/update.json?include_entities=true",
        pair=pair,
        form=b"status=Hello%20Ladies%20%2b%20Gentlemen%2c%20a%20signed%20OAuth%20request%21",
    )
    assert b'oauth_signature="hCtSmYh%2BiHYCEqBWrE7C7hYmtUk%3D"' in signed.expose()


@pytest.mark.parametrize("method", ["HMAC-SHA1", "HMAC-SHA256", "PLAINTEXT", "RSA-SHA1"])
def test_oauth_1_is_signed_as_another_implementation_does(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_auth, "generate_nonce", lambda: "a-nonce")
    monkeypatch.setattr(client_auth, "generate_timestamp", lambda: "1500000000")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    secret = pem if method == "RSA-SHA1" else "s&cret"
    url = "https://api.example/things?b=2&a=1%2F%20&b=1"
    other = oauth1.Client(
        "id",
        "s&cret",
        "t",
        "t&s",
        signature_method=method,
        rsa_key=pem,
        nonce="a-nonce",
        timestamp="1500000000",
        realm="R",
    )
    theirs = rsa_sha1(key, url) if method == "RSA-SHA1" else other.sign(url, "GET")[1]["Authorization"]
    expected = re.sub(r'.*oauth_signature="([^"]*)".*', r"\1", theirs)
    signed = sign_oauth1(
        Client("id", Secret(secret.encode()), "oauth1"),
        Dialect(signature_method=method, realm="R"),
        "GET",
        url,
        pair=(Secret(b"t"), Secret(b"t&s")),
    )
    text = signed.expose().decode()
    assert text.startswith('OAuth realm="R"')
    assert f'oauth_signature="{expected}"' in text


def rsa_sha1(key: rsa.RSAPrivateKey, url: str) -> str:
    """Signs the base string of RFC 5849, section 3.4.1, without any library of OAuth."""
    parameters = {
        "a": ["1/ "], "b": ["1", "2"], "oauth_consumer_key": ["id"], "oauth_nonce": ["a-nonce"],
        "oauth_signature_method": ["RSA-SHA1"], "oauth_timestamp": ["1500000000"], "oauth_token": ["t"],
        "oauth_version": ["1.0"],
    }  # fmt: skip
    normal = "&".join(f"{name}={quote(each, safe='~')}" for name, found in sorted(parameters.items()) for each in found)
    text = "&".join(quote(each, safe="~") for each in ("GET", url.partition("?")[0], normal))
    signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303  # what the RFC says
    return quote(base64.b64encode(signature).decode(), safe="~")


def test_a_key_that_cannot_sign_is_refused() -> None:
    with pytest.raises(ClientKeyError):
        sign_oauth1(
            Client("id", Secret(b"no key"), "oauth1"), Dialect(signature_method="RSA-SHA1"), "GET", "https://a.example/"
        )
