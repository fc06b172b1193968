"""Connecting an account again: the connection keeps its id, whatever became of its token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from authpipe_testing.customer import Customer


def again(customer: Customer, connection: str, end_user: str, answer: str = "allow") -> str:
    """Connects the account of a connection again; gives where the browser ended."""
    session = {"end_user_id": end_user, "connection_id": connection}
    made = customer.post("/connect-sessions", session)
    assert made.status_code == 201, made.text
    url = made.json()["url"]
    browser = customer.browser()
    page = browser.get(url).text
    csrf = page.split('name="csrf" value="')[1].split('"')[0]
    config = page.split('name="provider_config_id" value="')[1].split('"')[0]
    form = {"csrf": csrf, "provider_config_id": config}
    begun = browser.post(url, data=form, headers={"origin": customer.rest})
    assert begun.status_code == 303, begun.text
    return str(browser.get(customer.allow(browser, begun.headers["location"], answer)).headers["location"])


@pytest.mark.promise("P36")
def test_a_connection_whose_grant_ended_is_connected_again_and_keeps_its_id(
    customer: Customer, config: str, playground: Any, aged: Callable[[str], None]
) -> None:
    connection = customer.connect(config, "comes-back")
    lost = customer.token(connection).json()["access_token"]
    # The Provider ends the grant: a refresh token that was used is used again somewhere else.
    aged(connection)
    playground.end_family(lost)
    refused = customer.post(f"/connections/{connection}/refresh")
    assert refused.json()["reason"] == "CONNECTION_NEEDS_REAUTH", refused.text
    shown = customer.get(f"/connections/{connection}").json()
    assert (shown["state"], shown["state_reason"]) == ("needs_reauth", "INVALID_GRANT")
    assert shown["state_help"].endswith(".")
    assert again(customer, connection, "comes-back") == "/connect/done"
    shown = customer.get(f"/connections/{connection}").json()
    assert (shown["state"], shown["state_reason"], shown["state_help"]) == ("active", "", "")
    token = customer.token(connection).json()["access_token"]
    assert token != lost
    assert playground.knows(token)
    aged(connection)
    assert customer.post(f"/connections/{connection}/refresh").status_code == 200, "and it refreshes as before"
    assert [each["id"] for each in customer.get("/connections", end_user_id="comes-back").json()["connections"]] == [
        connection
    ]


def test_a_no_at_the_provider_takes_nothing_away(customer: Customer, config: str, playground: Any) -> None:
    connection = customer.connect(config, "says-no")
    before = customer.token(connection).json()["access_token"]
    assert again(customer, connection, "says-no", "deny").startswith("/connect/failed")
    assert customer.token(connection).json()["access_token"] == before
    assert playground.knows(before)


def test_what_cannot_be_connected_again_is_refused(customer: Customer, config: str, stranger: Customer) -> None:
    connection = customer.connect(config, "only-mine")
    refused = customer.post("/connect-sessions", {"end_user_id": "somebody-else", "connection_id": connection})
    assert (refused.status_code, refused.json()["field"]) == (400, "connection_id")
    theirs = stranger.post("/connect-sessions", {"end_user_id": "only-mine", "connection_id": connection})
    assert theirs.status_code == 404
    key = customer.import_api_key("sk_live_a-key-is-not-connected-again-0123")["id"]
    assert customer.post("/connect-sessions", {"end_user_id": "user-1", "connection_id": key}).status_code == 404
    assert customer.delete(f"/connections/{connection}").status_code == 200
    gone = customer.post("/connect-sessions", {"end_user_id": "only-mine", "connection_id": connection})
    assert (gone.status_code, gone.json()["reason"]) == (409, "CONNECTION_DISCONNECTED")
