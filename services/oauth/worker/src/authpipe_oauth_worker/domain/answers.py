"""Judging what a Provider answered; sending is elsewhere, so that a stored answer can be judged again after a crash.

Nothing of an answer is shown: a failure is a word of the list below, never the Provider's text, which may echo our own
secret (case 21).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

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
    "authorization_pending": "AUTHORIZATION_PENDING",
    "access_denied": "ACCESS_DENIED",
    "expired_token": "EXPIRED_TOKEN",
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
    # RFC 9449, sections 5 and 8.
    "use_dpop_nonce": "USE_DPOP_NONCE",
    "invalid_dpop_proof": "INVALID_DPOP_PROOF",
}
# RFC 9449, section 8.1.
NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,500}")
# RFC 6749, appendix A.12: access-token = 1*VSCHAR. No CR, LF or NUL reaches a header of our customers.
_TOKEN = re.compile(rb"[\x20-\x7e]{1,16384}")
_TOKEN_TYPES = {"bearer": "Bearer", "dpop": "DPoP"}
_LONGEST_LIFE = 10 * 365 * 86_400
_OK = 200
# RFC 6749 says 200; some answer 201.
_GOOD = {200, 201}
_LONGEST_METADATA = 200
_USUAL = Dialect()
# A person types a user code: RFC 8628, section 6.1.
_USER_CODE = re.compile(r"[\x21-\x7e]{1,64}")
_LONGEST_DEVICE_LIFE, _USUAL_DEVICE_LIFE = 3_600, 600
_USUAL_INTERVAL, _LONGEST_INTERVAL = 5, 60
# What a Provider's own request answers for credentials that it does not take.
_REFUSED = {400, 401, 403, 422}
# What API that answer 200 whatever happens call a credential that is not good (Slack and its like).
_NOT_GOOD = {"invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive", "invalid_token"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came.

    Args:
        status: The HTTP status.
        body: The body, as it is sealed before anybody judges it.
        retry_after_seconds: What the Provider asked for; 0: nothing.
        location: Where it redirects; None: nowhere.
        dpop_nonce: What the next proof of a key has to carry (RFC 9449, section 8.2); empty: nothing is said.
    """

    status: int
    body: Secret
    retry_after_seconds: int
    location: str | None = None
    dpop_nonce: str = ""


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
        token_type: Bearer, or DPoP.
    """

    access_token: Secret
    refresh_token: Secret | None
    life_seconds: int | None
    scopes: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    token_type: str = "Bearer"  # noqa: S105  # a word


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Credentials of OAuth 1.0a, temporary or not (RFC 5849, sections 2.1 and 2.3).

    Args:
        token: The token.
        secret: Its secret.
        metadata: What of the answer is worth keeping; never a secret.
    """

    token: Secret
    secret: Secret
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Began:
    """A device flow that was begun (RFC 8628, section 3.2).

    Args:
        device_code: What is asked with.
        user_code: What a person types.
        verification_uri: Where.
        verification_uri_complete: The same with the code in it; empty: there is none.
        life_seconds: For how long.
        interval_seconds: How often it may be asked.
    """

    device_code: Secret
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    life_seconds: int
    interval_seconds: int


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
        "CREDENTIALS_REFUSED",
        "CALLBACK_TOKEN_DIFFERS",
        "MATERIAL_UNUSABLE",
        "CLIENT_KEY_UNUSABLE",
        "PROVIDER_ANSWER_MALFORMED",
        "TOKEN_TYPE_UNKNOWN",
        "PROVIDER_REFUSED",
        "PROVIDER_REDIRECTS",
        "ENDPOINT_GONE",
    }


def judge_tokens(answer: Answer, said: Said, dialect: Dialect = _USUAL, *, bound: bool = False) -> Tokens | Failure:
    """Judges a token answer, found where its Provider puts things; it may be bound to a key where one was shown."""
    data = _token_answer(answer, said, dialect)
    if isinstance(data, Failure):
        return data
    at = dialect.answer
    access_token = at_pointer(data, at.access_token or "/access_token")
    # Some Providers answer 200 with an error in it; what has a token is no error.
    if answer.status not in _GOOD or (access_token is None and ("error" in data or data.get("ok") is False)):
        return _failure(answer, data)
    if "error" in data and answer.status in _GOOD and not at.access_token:
        return _failure(answer, data)
    refresh_token = at_pointer(data, at.refresh_token or "/refresh_token")
    if not isinstance(access_token, Secret) or not access_token.matches(_TOKEN):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    kept = refresh_token if isinstance(refresh_token, Secret) and refresh_token else None
    if kept is None and refresh_token is not None and not isinstance(refresh_token, Secret):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    if kept is not None and not kept.matches(_TOKEN):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    # RFC 6749, section 7.1: a token of a type that we do not understand must not be used.
    token_type = _token_type(data.get("token_type"), dialect, bound=bound)
    if token_type is None:
        return Failure("TOKEN_TYPE_UNKNOWN", retryable=False)
    life = _life(at_pointer(data, at.expires_in or "/expires_in"))
    if isinstance(life, Failure):
        return life
    if life is None and dialect.life_seconds:
        life = dialect.life_seconds
    metadata = tuple((name, text) for name, at in dialect.metadata if (text := _worth_keeping(at_pointer(data, at))))
    scopes = _scopes(at_pointer(data, at.scope or "/scope"), dialect)
    return Tokens(access_token, kept, life, scopes, metadata, token_type)


def _token_type(word: object, dialect: Dialect, *, bound: bool) -> str | None:
    found = _TOKEN_TYPES.get(word.lower()) if isinstance(word, str) else None
    if found == "DPoP" and not bound:
        return None
    return "Bearer" if found is None and dialect.answer.token_type_absent else found


def _token_answer(answer: Answer, said: Said, dialect: Dialect) -> Mapping[str, object] | Failure:
    if dialect.two_step is not None and answer.status in _REFUSED:
        # Nothing but the credentials was judged, whatever the Provider calls it.
        return Failure("CREDENTIALS_REFUSED", retryable=False)
    return _object(answer, said)


def at_pointer(data: Mapping[str, object], pointer: str) -> object:
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


def judge_token_pair(answer: Answer, said: Said, dialect: Dialect) -> TokenPair | Failure:
    """Judges an answer with credentials of OAuth 1.0a (RFC 5849, sections 2.1 and 2.3): a form."""
    if answer.status not in _GOOD:
        # Nothing says in which words it refuses (section 3.2): a status is all there is.
        refused = "INVALID_CLIENT" if answer.status == 401 else "PROVIDER_REFUSED"
        return _by_status(answer.status) or Failure(refused, retryable=False)
    found = [said.get(name) for name in ("oauth_token", "oauth_token_secret")] if said is not None else []
    if said is None or not all(isinstance(each, Secret) and each.matches(_TOKEN) for each in found):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    token, secret = (cast("Secret", each) for each in found)
    metadata = tuple((name, text) for name, at in dialect.metadata if (text := _worth_keeping(at_pointer(said, at))))
    return TokenPair(token, secret, metadata)


def judge_pushed(answer: Answer, said: Said) -> str | Failure:
    """Judges the answer to a pushed authorization request (RFC 9126, section 2.2); gives its `request_uri`."""
    data = _object(answer, said)
    if isinstance(data, Failure):
        return data
    uri = data.get("request_uri")
    if answer.status not in _GOOD:
        return _failure(answer, data)
    if not isinstance(uri, str) or not 1 <= len(uri) <= 500 or not uri.isprintable():
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    return uri


def judge_device(answer: Answer, said: Said) -> Began | Failure:
    """Judges the answer to a request for a device code (RFC 8628, section 3.2)."""
    data = _object(answer, said)
    if isinstance(data, Failure):
        return data
    if answer.status not in _GOOD:
        return _failure(answer, data)
    code, user_code = data.get("device_code"), data.get("user_code")
    # Some say verification_url.
    where = data.get("verification_uri") or data.get("verification_url")
    complete = data.get("verification_uri_complete") or ""
    good = isinstance(code, Secret) and code.matches(_TOKEN) and isinstance(user_code, str)
    if not good or not isinstance(user_code, str) or _USER_CODE.fullmatch(user_code) is None:
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    if not _is_page(where) or (complete and not _is_page(complete)):
        return Failure("PROVIDER_ANSWER_MALFORMED", retryable=False)
    life = _number(data.get("expires_in"), _USUAL_DEVICE_LIFE, _LONGEST_DEVICE_LIFE)
    interval = _number(data.get("interval"), _USUAL_INTERVAL, _LONGEST_INTERVAL)
    return Began(cast("Secret", code), user_code, str(where), str(complete), life, interval)


def _is_page(value: object) -> bool:
    """Whether a person can be sent there."""
    return isinstance(value, str) and len(value) <= 500 and value.startswith("https://") and value.isprintable()


def _number(value: object, usual: int, most: int) -> int:
    good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return min(cast("int", value), most) if good else usual


def judge_health(answer: Answer, said: Said) -> Failure | None:
    """Judges the answer to a harmless request; None: the credential is good; retryable: it says nothing of the credential."""
    if answer.status == 401:
        return Failure("CREDENTIAL_REFUSED", retryable=False)
    if 200 <= answer.status < 300:
        if said is None or said.get("ok") is not False:
            return None
        known = said.get("error") in _NOT_GOOD
        return Failure("CREDENTIAL_REFUSED" if known else "PROVIDER_REFUSED", retryable=not known)
    passing = _by_status(answer.status)
    return Failure(passing.reason if passing else "PROVIDER_REFUSED", retryable=True)


def judge_introspection(answer: Answer, said: Said) -> Failure | None:
    """Judges the answer to an introspection (RFC 7662, section 2.2); None: the token is active."""
    if answer.status != _OK or said is None or not isinstance(said.get("active"), bool):
        return Failure("PROVIDER_REFUSED", retryable=True)
    return None if said["active"] else Failure("CREDENTIAL_REFUSED", retryable=False)


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
