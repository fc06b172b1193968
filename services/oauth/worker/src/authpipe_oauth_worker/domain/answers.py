"""Judging what a Provider answered; sending is elsewhere, so that a stored answer can be judged again after a crash.

Nothing of an answer is shown: a failure is a word of the list below, never the Provider's text, which may echo our own
secret (case 21).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from authpipe_sensitive import Secret

# RFC 6749, section 5.2, and what Providers send in its place.
_ERRORS = {
    "invalid_request": "INVALID_REQUEST",
    "invalid_client": "INVALID_CLIENT",
    "invalid_grant": "INVALID_GRANT",
    "unauthorized_client": "UNAUTHORIZED_CLIENT",
    "unsupported_grant_type": "UNSUPPORTED_GRANT_TYPE",
    "invalid_scope": "INVALID_SCOPE",
    "invalid_target": "INVALID_TARGET",
    "slow_down": "PROVIDER_SLOW_DOWN",
    "bad_verification_code": "INVALID_GRANT",
    "bad_refresh_token": "INVALID_GRANT",
    "incorrect_client_credentials": "INVALID_CLIENT",
    "unsupported_token_type": "UNSUPPORTED_TOKEN_TYPE",
    "temporarily_unavailable": "PROVIDER_UNAVAILABLE",
    "server_error": "PROVIDER_UNAVAILABLE",
}
# RFC 6749, appendix A.12: access-token = 1*VSCHAR. No CR, LF or NUL reaches a header of our customers.
_TOKEN = re.compile(rb"[\x20-\x7e]{1,16384}")
_LONGEST_LIFE = 10 * 365 * 86_400
_OK = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came.

    Args:
        status: The HTTP status.
        body: The body, as it is sealed before anybody judges it.
        retry_after_seconds: What the Provider asked for; 0: nothing.
        location: Where it redirects; None: nowhere.
    """

    status: int
    body: Secret
    retry_after_seconds: int
    location: str | None = None


# What an answer says, as the door read it: a JSON object whose values with secret material are Secrets; None: it is none.
Said = Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Tokens:
    """A good token answer (RFC 6749, section 5.1).

    Args:
        access_token: The access token.
        refresh_token: The refresh token; None: the Provider sent none, the old one stays.
        life_seconds: How long the access token lives; None: it does not say.
        scopes: The scopes granted; empty: as asked for.
    """

    access_token: Secret
    refresh_token: Secret | None
    life_seconds: int | None
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A bad answer.

    Args:
        reason: A word of a closed list.
        retryable: Whether the same request may work later.
    """

    reason: str
    retryable: bool


def words() -> frozenset[str]:
    """Gives every word that a judgement may be, for the test that compares it with coordinator's table."""
    return frozenset(_ERRORS.values()) | {
        "PROVIDER_ANSWER_MALFORMED",
        "TOKEN_TYPE_UNKNOWN",
        "PROVIDER_REFUSED",
        "PROVIDER_REDIRECTS",
        "ENDPOINT_GONE",
    }


def judge_tokens(answer: Answer, said: Said) -> Tokens | Failure:
    """Judges a token answer."""
    data = _object(answer, said)
    if isinstance(data, Failure):
        return data
    if answer.status != _OK or "error" in data:
        return _failure(answer, data)
    access_token, refresh_token = data.get("access_token"), data.get("refresh_token")
    if not isinstance(access_token, Secret) or not access_token.matches(_TOKEN):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    kept = refresh_token if isinstance(refresh_token, Secret) and refresh_token else None
    if kept is None and refresh_token is not None and not isinstance(refresh_token, Secret):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    if kept is not None and not kept.matches(_TOKEN):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    # RFC 6749, section 7.1: a token of a type that we do not understand must not be used.
    token_type = data.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        return Failure("TOKEN_TYPE_UNKNOWN", retryable=False)
    life = _life(data.get("expires_in"))
    if isinstance(life, Failure):
        return life
    scope = data.get("scope", "")
    scopes = tuple(re.split(r"[ ,]+", scope.strip())) if isinstance(scope, str) and scope.strip() else ()
    return Tokens(access_token, kept, life, scopes[:100])


def judge_revocation(answer: Answer, said: Said) -> Failure | None:
    """Judges the answer to a revocation (RFC 7009, section 2.2); None: revoked, or there was nothing to revoke."""
    if answer.status in {200, 204}:
        return None
    data = _object(answer, said)
    failure = data if isinstance(data, Failure) else _failure(answer, data)
    # RFC 7009, section 2.2: an invalid token does not cause an error; some Providers send one all the same.
    return None if failure.reason == "INVALID_GRANT" else failure


def judge_metadata(answer: Answer, said: Said) -> Mapping[str, object] | Failure:
    """Judges an issuer's metadata (RFC 8414, section 3.2)."""
    if answer.status != _OK:
        return Failure(f"STATUS_{answer.status}", retryable=answer.status >= 500)
    return _object(answer, said)


def _object(answer: Answer, said: Said) -> Mapping[str, object] | Failure:
    if said is not None:
        return said
    return _by_status(answer.status) or Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)


def _by_status(status: int) -> Failure | None:
    """Judges an answer by its status alone (RFC 9110, section 15); None: it says nothing."""
    if status == 429:
        return Failure("PROVIDER_SLOW_DOWN", retryable=True)
    if status >= 500 or status == 408:
        return Failure("PROVIDER_UNAVAILABLE", retryable=True)
    if 300 <= status < 400:
        return Failure("PROVIDER_REDIRECTS", retryable=False)
    return Failure("ENDPOINT_GONE", retryable=False) if status in {404, 405, 410} else None


def _failure(answer: Answer, data: Mapping[str, object]) -> Failure:
    code = data.get("error")
    reason = _ERRORS.get(code) if isinstance(code, str) else None
    if answer.status >= 500 or answer.status == 429 or reason is None:
        # What a status says of the Provider itself counts more than what its body says of us.
        otherwise = "INVALID_CLIENT" if answer.status == 401 else "PROVIDER_REFUSED"
        return _by_status(answer.status) or Failure(otherwise, retryable=False)
    return Failure(reason, retryable=reason in {"PROVIDER_UNAVAILABLE", "PROVIDER_SLOW_DOWN"})


def _life(value: object) -> int | Failure | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    try:
        life = int(float(value))
    except (ValueError, OverflowError):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    if not 0 <= life <= _LONGEST_LIFE:
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    return life
