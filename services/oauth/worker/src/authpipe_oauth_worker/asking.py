"""Door: what tokens are asked for with, where it is not a refresh token: it looks inside what a connection has brought.

client_credentials   nothing but who our client is (RFC 6749, section 4.4)
jwt_bearer           an assertion, signed with the connection's own key (RFC 7523, section 2.1)
token_exchange       a token of somebody else's (RFC 8693, section 2.1)
two_step             the request that the Provider's entry declares, filled in
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.errors import JoseError

from authpipe_oauth_worker.domain.ports import Ask
from authpipe_oauth_worker.domain.words import Job, Renewal
from authpipe_oauth_worker.errors import ClientKeyError, MaterialError
from authpipe_oauth_worker.requests import algorithm_of, private_key
from authpipe_sensitive import Secret

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  # a name
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a name
_PLACE = re.compile(r"\{([a-z][a-z0-9_]{0,30})\}")


def ask(job: Job, material: Secret, now: datetime) -> Ask:
    """Gives what a token is asked for with.

    Args:
        job: The job.
        material: What the connection has brought: a JSON object of texts.
        now: The time.

    Raises:
        MaterialError: Something is missing in it, or cannot be used.
    """
    try:
        brought = json.loads(bytes(material.expose()))
        if not isinstance(brought, dict) or not all(isinstance(each, str) for each in brought.values()):
            raise MaterialError
        match job.renewal:
            case Renewal.CLIENT_CREDENTIALS:
                return Ask({**_common(job), "grant_type": "client_credentials", **_scope(job)})
            case Renewal.JWT_BEARER:
                assertion = Secret(_assertion(job, brought, now).encode())
                scope = {} if job.endpoints.dialect.assertion.scope_claim else _scope(job)
                return Ask({**_common(job), "grant_type": _JWT_BEARER, "assertion": assertion, **scope})
            case Renewal.TOKEN_EXCHANGE:
                exchange = {
                    "grant_type": _TOKEN_EXCHANGE,
                    "subject_token": Secret(brought["subject_token"].encode()),
                    "subject_token_type": brought.get("subject_token_type", _ACCESS_TOKEN),
                }
                return Ask({**_common(job), **exchange, **_scope(job)})
            case Renewal.TWO_STEP:
                return Ask({}, _own_request(job, brought))
            case Renewal.REFRESH_TOKEN:
                raise MaterialError
    except (KeyError, ValueError, JoseError, ClientKeyError):
        raise MaterialError from None


def _common(job: Job) -> dict[str, Secret | str]:
    dialect = job.endpoints.dialect
    return {**dict(dialect.token_parameters), **({"resource": dialect.resource} if dialect.resource else {})}


def _scope(job: Job) -> dict[str, Secret | str]:
    dialect = job.endpoints.dialect
    return {dialect.scope_parameter: dialect.scope_separator.join(job.scopes)} if job.scopes else {}


def _assertion(job: Job, brought: Mapping[str, str], now: datetime) -> str:
    """Signs an assertion (RFC 7523, section 3)."""
    dialect = job.endpoints.dialect
    rules, key = dialect.assertion, private_key(brought["private_key"])
    issued = int(now.timestamp())
    claims = {
        "iss": brought["issuer"],
        "sub": brought.get("subject", brought["issuer"]),
        "aud": rules.audience or job.endpoints.token,
        "iat": issued,
        "exp": int((now + timedelta(seconds=rules.life_seconds)).timestamp()),
        "jti": secrets.token_urlsafe(16),
    }
    if rules.scope_claim:
        claims["scope"] = dialect.scope_separator.join(job.scopes)
    algorithm = algorithm_of(key)
    header = {"alg": algorithm, "typ": "JWT"}
    if key_id := brought.get("key_id") or key.kid:
        header["kid"] = key_id
    return jwt.encode(header, claims, key, algorithms=[algorithm])


def _own_request(job: Job, brought: Mapping[str, str]) -> tuple[str, str, Mapping[str, Secret | str], Secret | None]:
    """Fills in the request that a Provider's entry declares."""
    own = job.endpoints.dialect.two_step
    if own is None:
        raise MaterialError

    def filled(text: str) -> str:
        return _PLACE.sub(lambda place: brought[place.group(1)], text)

    headers: dict[str, Secret | str] = {
        name.lower(): Secret(filled(value).encode()) if _PLACE.search(value) else value for name, value in own.headers
    }
    fields = {name: filled(value) for name, value in own.fields}
    if not fields or own.method == "GET":
        return own.method, job.endpoints.token, headers, None
    headers["content-type"] = "application/json" if own.json_body else "application/x-www-form-urlencoded"
    body = json.dumps(fields) if own.json_body else urlencode(fields)
    return own.method, job.endpoints.token, headers, Secret(body.encode())
