"""Door: token requests as they are written, with how our OAuth client shows who it is (RFC 6749, 2.3.1; RFC 7523).

A private key is kept as a PEM or a JWK (RFC 7517); its type says with which algorithm it signs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key

from authpipe_oauth_worker.domain.ports import Client
from authpipe_oauth_worker.errors import ClientKeyError
from authpipe_sensitive import Secret

_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA", "Ed448": "EdDSA"}
_PEM_TYPES = (RSAKey, ECKey, OKPKey)


def token_request(
    url: str, parameters: Mapping[str, Secret | str], client: Client, *, json_body: bool
) -> tuple[dict[str, str], bytes]:
    """Writes a token request.

    Args:
        url: Where it goes: an assertion is good for there alone.
        parameters: What it says.
        client: Who says it.
        json_body: Whether as JSON; else as a form (RFC 6749, appendix B).

    Returns:
        The headers and the body.

    Raises:
        ClientKeyError: The client's key cannot be used.
    """
    plain = {name: _open(value) for name, value in parameters.items()}
    secret = _open(client.secret) if client.secret is not None else ""
    try:
        match client.method:
            case "client_secret_jwt":
                auth = ClientAuth(client.id, OctKey.import_key(secret), ClientSecretJWT())
            case "private_key_jwt":
                key = private_key(secret)
                auth = ClientAuth(client.id, key, PrivateKeyJWT(headers=_kid(key), alg=algorithm_of(key)))
            case "tls_client_auth":
                # RFC 8705, section 2: the certificate of the connection says it; the id stands in the request.
                auth = ClientAuth(client.id, "", "none")
            case _:
                auth = ClientAuth(client.id, secret, client.method)
        _, headers, body = auth.prepare(
            "POST", url, {"content-type": "application/x-www-form-urlencoded"}, urlencode(plain)
        )
    except (ValueError, JoseError):
        raise ClientKeyError from None
    if client.method.endswith("_jwt"):
        body = f"{body}&{urlencode({'client_id': client.id})}"
    if json_body:
        headers["content-type"] = "application/json"
        body = json.dumps(dict(parse_qsl(body, keep_blank_values=True)))
    return headers, body.encode()


def _open(value: Secret | str) -> str:
    return value.expose().decode() if isinstance(value, Secret) else value


def private_key(text: str) -> RSAKey | ECKey | OKPKey:
    """Reads a private key, a PEM or a JWK (RFC 7517).

    Raises:
        ClientKeyError: It is none that can sign.
    """
    if text.lstrip().startswith("{"):
        key = import_key(json.loads(text))
        if not isinstance(key, _PEM_TYPES) or not key.is_private:
            raise ClientKeyError
        return key
    for each in _PEM_TYPES:
        try:
            found = each.import_key(text)
        except (ValueError, TypeError, JoseError):
            continue
        if found.is_private:
            return found
    raise ClientKeyError


def algorithm_of(key: RSAKey | ECKey | OKPKey) -> str:
    """Gives the algorithm by which a key signs: the one that it declares, or the usual one of its type."""
    declared = key.get("alg")
    if isinstance(declared, str):
        return declared
    return "RS256" if isinstance(key, RSAKey) else _ALGORITHMS[key.curve_name]


def _kid(key: RSAKey | ECKey | OKPKey) -> dict[str, str]:
    return {"kid": key.kid} if key.kid else {}
