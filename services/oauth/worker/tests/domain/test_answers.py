"""Judging what Providers answer: good ones, bad ones, hostile ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from authpipe_oauth_worker.bodies import Bodies
from authpipe_oauth_worker.domain.answers import Answer, Failure, Said, Tokens, judge_revocation, judge_tokens
from authpipe_sensitive import Secret
from hypothesis import given
from hypothesis import strategies as st

GOOD = {"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt", "scope": "a b"}


def answer(body: object, status: int = 200) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, Secret(data), 0)


def judged(judge: Callable[[Answer, Said], Any], given_answer: Answer) -> Any:
    return judge(given_answer, Bodies().read(given_answer))


def test_a_good_answer() -> None:
    tokens = judged(judge_tokens, answer(GOOD))
    assert isinstance(tokens, Tokens)
    assert tokens.access_token == Secret(b"at")
    assert tokens.refresh_token == Secret(b"rt")
    assert tokens.life_seconds == 3600
    assert tokens.scopes == ("a", "b")


@pytest.mark.parametrize("refresh_token", [None, ""])
def test_no_refresh_token_means_the_old_one_stays(refresh_token: object) -> None:
    tokens = judged(judge_tokens, answer({**GOOD, "refresh_token": refresh_token}))
    assert isinstance(tokens, Tokens)
    assert tokens.refresh_token is None


BAD = [
    (400, {"error": "invalid_grant"}, "INVALID_GRANT", False),
    (401, {"error": "invalid_client"}, "INVALID_CLIENT", False),
    (401, {}, "INVALID_CLIENT", False),
    (200, {"error": "bad_verification_code"}, "INVALID_GRANT", False),
    (400, {"error": "something of its own"}, "PROVIDER_REFUSED", False),
    (500, b"<html>oops</html>", "PROVIDER_UNAVAILABLE", True),
    (503, {}, "PROVIDER_UNAVAILABLE", True),
    (429, b"slow down", "PROVIDER_SLOW_DOWN", True),
    (200, b"<html>welcome</html>", "PROVIDER_ANSWER_MALFORMED", False),
    (200, b"", "PROVIDER_ANSWER_MALFORMED", False),
    (302, b"", "PROVIDER_REDIRECTS", False),
    (200, [], "PROVIDER_ANSWER_MALFORMED", False),
    (200, b'{"access_token":"a","access_token":"b","token_type":"Bearer"}', "PROVIDER_ANSWER_MALFORMED", False),
    (200, b"[" * 100_000, "PROVIDER_ANSWER_MALFORMED", False),
    (200, {**GOOD, "access_token": "line\r\nbreak"}, "PROVIDER_ANSWER_MALFORMED", False),
    (200, {**GOOD, "access_token": "nul\x00"}, "PROVIDER_ANSWER_MALFORMED", False),
    (200, {**GOOD, "access_token": ""}, "PROVIDER_ANSWER_MALFORMED", False),
    (200, {**GOOD, "access_token": 1}, "PROVIDER_ANSWER_MALFORMED", False),
    (200, {**GOOD, "refresh_token": {"a": 1}}, "PROVIDER_ANSWER_MALFORMED", False),
    (200, {**GOOD, "token_type": "mac"}, "TOKEN_TYPE_UNKNOWN", False),
    (200, {"access_token": "at"}, "TOKEN_TYPE_UNKNOWN", False),
    (200, {**GOOD, "expires_in": -1}, "PROVIDER_ANSWER_MALFORMED", False),
    (200, {**GOOD, "expires_in": "soon"}, "PROVIDER_ANSWER_MALFORMED", False),
    (200, {**GOOD, "expires_in": True}, "PROVIDER_ANSWER_MALFORMED", False),
    (200, {**GOOD, "expires_in": 1e300}, "PROVIDER_ANSWER_MALFORMED", False),
]


@pytest.mark.parametrize(("status", "body", "reason", "retryable"), BAD)
def test_a_bad_answer_is_a_word_of_the_list(status: int, body: object, reason: str, retryable: bool) -> None:
    assert judged(judge_tokens, answer(body, status)) == Failure(reason, retryable)


@given(body=st.binary(max_size=200), status=st.integers(100, 599))
def test_no_answer_at_all_makes_the_judge_stumble_or_repeat_it(body: bytes, status: int) -> None:
    found = judged(judge_tokens, Answer(status, Secret(body), 0))
    if isinstance(found, Failure):
        assert found.reason.isupper()


def test_an_answer_survives_being_sealed() -> None:
    before = Answer(429, Secret(b"body"), 30)
    after = Bodies().unpack(Bodies().pack(before))
    assert (after.status, after.retry_after_seconds) == (429, 30)
    assert after.body == Secret(b"body")


@pytest.mark.promise("P11")
def test_revocation_answers() -> None:
    assert judged(judge_revocation, answer(b"", 200)) is None
    assert judged(judge_revocation, answer({"error": "invalid_grant"}, 400)) is None
    assert judged(judge_revocation, answer(b"", 503)) == Failure("PROVIDER_UNAVAILABLE", retryable=True)
    assert judged(judge_revocation, answer({"error": "invalid_client"}, 401)) == Failure(
        "INVALID_CLIENT", retryable=False
    )
