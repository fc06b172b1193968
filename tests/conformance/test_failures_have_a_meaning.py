"""Every word by which the worker says why a refresh failed stands in coordinator's table of what it means."""

from __future__ import annotations

import inspect
import re

import pytest
from authpipe_oauth_coordinator.domain.failures import known
from authpipe_oauth_worker import egress
from authpipe_oauth_worker.domain import answers

# Never said of a token endpoint: redirects are not followed there; what is too large was sent, and is an answer lost.
ELSEWHERE = {"REDIRECTED_ELSEWHERE", "TOO_MANY_REDIRECTS", "ANSWER_TOO_LARGE", "ANSWER_BROKE_OFF"}
# Our own matter: it is tried again whenever somebody asks.
OURS = {"TOO_MANY_AT_ONCE", "UNSUPPORTED_TOKEN_TYPE"}


@pytest.mark.promise("P36")
def test_what_a_provider_says_has_a_meaning() -> None:
    assert answers.words() - OURS <= known()


@pytest.mark.promise("P36")
def test_what_happens_on_the_way_has_a_meaning() -> None:
    said = set(re.findall(r'Label\("([A-Z_]+)"\)', inspect.getsource(egress)))
    assert said - ELSEWHERE - OURS <= known()
    assert {"PROVIDER_CIRCUIT_OPEN", "TIMEOUT"} <= said, "the words are found"
