"""Judging what a Provider answered; sending is elsewhere, so that a stored answer can be judged again after a crash.

Nothing of an answer is shown: a failure is a word of the list below, never the Provider's text, which may echo our own
secret (case 21).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from authpipe_providers import Dialect
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
    "invalid_refresh_token": "INVALID_GRANT",
    "invalid_code": "INVALID_GRANT",
    "code_already_used": "INVALID_GRANT",
    "token_revoked": "INVALID_GRANT",
    "token_expired": "INVALID_GRANT",
    "invalid_client_id": "INVALID_CLIENT",
    "bad_client_secret": "INVALID_CLIENT",
    "unsupported_token_type": "UNSUPPORTED_TOKEN_TYPE",
    "temporarily_unavailable": "PROVIDER_UNAVAILABLE",
    "server_error": "PROVIDER_UNAVAILABLE",
}
# RFC 6749, appendix A.12: access-token = 1*VSCHAR. No CR, LF or NUL reaches a header of our customers.
_TOKEN = re.compile(rb"[\x20-\x7e]{1,16384}")
_LONGEST_LIFE = 10 * 365 * 86_400
_OK = 200
# RFC 6749 says 200; some answer 201.
_GOOD = {200, 201}
_LONGEST_METADATA = 200
_USUAL = Dialect()


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
        metadata: What of the answer is worth keeping; never a secret.
    """

    access_token: Secret
    refresh_token: Secret | None
    life_seconds: int | None
    scopes: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A bad answer.

    Args:
        reason: A word of a closed list.
        retryable: Whether the same request may work later.
        retry_after_seconds: What the Provider asked for; 0: nothing.
    """

    reason: str
    retryable: bool
    retry_after_seconds: int = 0


def words() -> frozenset[str]:
    """Gives every word that a judgement may be, for the test that compares it with coordinator's table."""
    return frozenset(_ERRORS.values()) | {
        "PROVIDER_ANSWER_MALFORMED",
        "TOKEN_TYPE_UNKNOWN",
        "PROVIDER_REFUSED",
        "PROVIDER_REDIRECTS",
        "ENDPOINT_GONE",
    }


def judge_tokens(answer: Answer, said: Said, dialect: Dialect = _USUAL) -> Tokens | Failure:
    """Judges a token answer, found where its Provider puts things."""
    data = _object(answer, said)
    if isinstance(data, Failure):
        return data
    at = dialect.answer
    access_token = _find(data, at.access_token or "/access_token")
    # Some Providers answer 200 with an error in it; what has a token is no error.
    if answer.status not in _GOOD or (access_token is None and ("error" in data or data.get("ok") is False)):
        return _failure(answer, data)
    if "error" in data and answer.status in _GOOD and not at.access_token:
        return _failure(answer, data)
    refresh_token = _find(data, at.refresh_token or "/refresh_token")
    if not isinstance(access_token, Secret) or not access_token.matches(_TOKEN):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    kept = refresh_token if isinstance(refresh_token, Secret) and refresh_token else None
    if kept is None and refresh_token is not None and not isinstance(refresh_token, Secret):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    if kept is not None and not kept.matches(_TOKEN):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    # RFC 6749, section 7.1: a token of a type that we do not understand must not be used.
    token_type = data.get("token_type")
    if not at.token_type_absent and (not isinstance(token_type, str) or token_type.lower() != "bearer"):
        return Failure("TOKEN_TYPE_UNKNOWN", retryable=False)
    life = _life(_find(data, at.expires_in or "/expires_in"))
    if isinstance(life, Failure):
        return life
    if life is None and dialect.life_seconds:
        life = dialect.life_seconds
    metadata = tuple((name, text) for name, at in dialect.metadata if (text := _worth_keeping(_find(data, at))))
    return Tokens(access_token, kept, life, _scopes(_find(data, at.scope or "/scope"), dialect), metadata)


def _find(data: Mapping[str, object], pointer: str) -> object:
    """Gives what stands at a JSON pointer (RFC 6901) of plain names; None: nothing."""
    found: object = data
    for name in pointer.split("/")[1:]:
        if isinstance(found, Mapping):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _scopes(scope: object, dialect: Dialect) -> tuple[str, ...]:
    if isinstance(scope, str):
        found = [each for each in re.split(f"[ ,{re.escape(dialect.scope_separator)}]+", scope.strip()) if each]
    else:
        found = [each for each in scope if isinstance(each, str)] if isinstance(scope, list) else []
    return tuple(found[:100])


def _worth_keeping(value: object) -> str:
    """Gives what is kept beside a connection: a short text or number, never what is shut."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value)
    return text if len(text) <= _LONGEST_METADATA and text.isprintable() else ""


def judge_revocation(answer: Answer, said: Said) -> Failure | None:
    """Judges the answer to a revocation (RFC 7009, section 2.2); None: revoked, or there was nothing to revoke."""
    if answer.status in {200, 202, 204} and (said is None or said.get("ok") is not False):
        return None
    data = _object(answer, said)
    failure = data if isinstance(data, Failure) else _failure(answer, data)
    # RFC 7009, section 2.2: an invalid token does not cause an error; some Providers send one all the same.
    if failure.reason == "INVALID_GRANT":
        return None
    # Section 2.2.1: 503 with Retry-After. A status that passes may pass here too.
    passing = failure.retryable or answer.status in {408, 425}
    return dataclasses.replace(failure, retryable=passing, retry_after_seconds=answer.retry_after_seconds)


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
