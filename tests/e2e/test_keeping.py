"""Disconnecting what cannot be revoked, and taking it back within thirty days (promise P12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from authpipe_testing.customer import Customer

API_KEY = "sk_live_a-key-that-is-kept-for-a-while"


@pytest.mark.promise("P12")
def test_what_is_kept_is_served_to_nobody_and_comes_back_under_its_id(
    customer: Customer, wait_for: Callable[..., Any]
) -> None:
    connection = customer.import_api_key(API_KEY, "keeps")["id"]
    kept = customer.delete(f"/connections/{connection}?keep_days=30").json()
    assert kept["state"] == "kept", kept
    assert kept["keep_until"]
    refused = customer.token(connection)
    assert (refused.status_code, API_KEY in refused.text) == (409, False), refused.text
    back = customer.post(f"/connections/{connection}/reconnect")
    assert (back.status_code, back.json()["state"]) == (200, "active"), back.text
    assert customer.token(connection).json()["api_key"] == API_KEY
    assert customer.post(f"/connections/{connection}/reconnect").status_code == 200, "twice is once"
    wanted = {"CONNECTION_KEPT", "RECORDS_KEPT", "CONTEXT_KEY_KEPT"}
    wanted |= {"CONNECTION_RESTORED", "RECORDS_RESTORED", "CONTEXT_KEY_RESTORED"}
    assert wait_for(lambda: wanted <= {each["event"] for each in customer.events(target=connection)})
    ended = customer.delete(f"/connections/{connection}").json()
    assert (ended["state"], ended["state_reason"]) == ("disconnected", "NOT_REVOCABLE")
    late = customer.post(f"/connections/{connection}/reconnect")
    assert (late.status_code, late.json()["reason"]) == (409, "CONNECTION_NOT_KEPT"), late.text


@pytest.mark.promise("P12")
@pytest.mark.promise("P31")
def test_a_token_that_can_be_revoked_is_revoked_and_not_kept(customer: Customer, config: str, playground: Any) -> None:
    connection = customer.connect(config, "keeps-no-token")
    token = customer.token(connection).json()["access_token"]
    assert customer.delete(f"/connections/{connection}?keep_days=30").json()["state"] == "disconnected"
    assert not playground.knows(token)
    assert customer.post(f"/connections/{connection}/reconnect").status_code == 409


@pytest.mark.promise("P12")
def test_what_was_kept_long_enough_is_gone_for_good_at_the_store_and_at_keyservice(
    customer: Customer, superuser: Callable[[str, str], Any], wait_for: Callable[..., Any]
) -> None:
    connection = customer.import_api_key(API_KEY, "kept-too-long")["id"]
    customer.delete(f"/connections/{connection}?keep_days=1").raise_for_status()
    # A day passes at coordinator alone: it asks for the end.
    with superuser("core", "coordinator") as core:
        core.execute("update connections set keep_until = now() - interval '1 second' where id = %s", (connection,))
    late = customer.post(f"/connections/{connection}/reconnect")
    assert late.status_code == 409

    def gone() -> bool:
        with superuser("vault", "vault") as vault:
            left = vault.execute("select 1 from records where connection_id = %s", (connection,)).fetchall()
        with superuser("core", "keyservice_user_credentials") as core:
            row = core.execute(
                "select state, wrapped from connection_keys where connection_id = %s", (connection,)
            ).fetchone()
        return not left and row[0] == "destroyed" and not bytes(row[1])

    assert wait_for(gone, 40)
    assert customer.get(f"/connections/{connection}").json()["state_reason"] == "KEPT_LONG_ENOUGH"


@pytest.mark.promise("P12")
@pytest.mark.case(9)
def test_a_superuser_who_says_active_everywhere_but_at_keyservice_opens_nothing(
    customer: Customer, superuser: Callable[[str, str], Any]
) -> None:
    connection = customer.import_api_key(API_KEY, "kept-and-forged")["id"]
    customer.delete(f"/connections/{connection}?keep_days=30").raise_for_status()
    with superuser("core", "coordinator") as core:
        core.execute("update connections set state = 'active', keep_until = null where id = %s", (connection,))
    with superuser("vault", "vault") as vault:
        vault.execute("update connection_states set state = 'active' where connection_id = %s", (connection,))
    refused = customer.token(connection)
    assert (refused.status_code != 200, API_KEY in refused.text) == (True, False), refused.text


def test_for_how_long_it_is_kept_is_checked(customer: Customer) -> None:
    connection = customer.import_api_key(API_KEY, "keeps-for-ever")["id"]
    for days in (31, -1):
        refused = customer.delete(f"/connections/{connection}?keep_days={days}")
        assert (refused.status_code, refused.json()["reason"]) == (400, "REQUEST_MALFORMED")
    assert customer.token(connection).json()["api_key"] == API_KEY
