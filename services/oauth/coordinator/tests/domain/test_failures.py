"""The table of failures: everything that the worker may say has its place."""

from __future__ import annotations

import pytest
from authpipe_oauth_coordinator.domain.failures import Cure, known, meaning


@pytest.mark.promise("P36")
@pytest.mark.parametrize(
    ("failure", "cure"),
    [
        ("INVALID_GRANT", Cure.END_USER),
        ("REFRESH_ANSWER_LOST", Cure.END_USER),
        ("INVALID_CLIENT", Cure.CUSTOMER),
        ("PROVIDER_TLS_TOO_OLD", Cure.CUSTOMER),
        ("PROVIDER_UNAVAILABLE", Cure.TIME),
        ("PROVIDER_CIRCUIT_OPEN", Cure.TIME),
        ("TIMEOUT", Cure.TIME),
        ("AUDIT_UNAVAILABLE", Cure.OURSELVES),
        ("A word of tomorrow", Cure.OURSELVES),
    ],
)
def test_every_failure_says_who_can_mend_it(failure: str, cure: Cure) -> None:
    assert meaning(failure).cure is cure


def test_every_failure_says_what_helps_in_a_sentence() -> None:
    for failure in known():
        helps = meaning(failure).helps
        assert helps.endswith("."), failure
        assert helps[0].isupper(), failure
        assert failure not in helps, "for people"
