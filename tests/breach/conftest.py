"""What the attacks of this folder share: a customer with members, and the alarms that forged rows raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe_testing.customer import Customer
from authpipe_testing.member import Member


@pytest.fixture(scope="module")
def shop(new_customer: Callable[..., Customer]) -> Customer:
    """A customer with members."""
    return new_customer()


@pytest.fixture
def owner(shop: Customer, new_member: Callable[..., Member]) -> Member:
    """An owner of the test's own."""
    return new_member(shop, "owner")


@pytest.fixture
def alarms(superuser: Callable[[str, str], psycopg.Connection[Any]]) -> Callable[[], int]:
    """Counts the alarms of rows that somebody else wrote."""

    def count() -> int:
        with superuser("core", "audit") as audit:
            row = audit.execute("select count(*) from bodies where name = 'AUTHORIZATION_ROW_FORGED'").fetchone()
        assert row is not None
        return int(row[0])

    return count
