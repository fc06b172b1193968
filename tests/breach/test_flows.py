"""Attacks on the flow: other browsers, used states, other issuers, two callbacks at once (cases 18, 19)."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer


def ends(answer: Any) -> str:
    """Gives where a callback led: done, or the reason."""
    assert answer.status_code == 303
    location = urlsplit(answer.headers["location"])
    assert "code" not in location.query
    return location.path if location.path.endswith("done") else parse_qs(location.query)["reason"][0]


def changed(url: str, **changes: str | None) -> str:
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | changes
    kept = {name: value for name, value in query.items() if value is not None}
    return urlunsplit(parts._replace(query=urlencode(kept)))


@pytest.fixture
def callback(customer: Customer, config: str) -> tuple[Any, str]:
    """A browser, and the callback that the Provider sent it to."""
    browser, url = customer.begin(config, "attacked")
    return browser, customer.allow(browser, url)


@pytest.mark.promise("P13")
@pytest.mark.promise("P14")
def test_every_authorization_request_has_pkce_and_a_fresh_state(customer: Customer, config: str) -> None:
    states = set()
    for _ in range(3):
        query = parse_qs(urlsplit(customer.begin(config)[1]).query)
        assert query["code_challenge_method"] == ["S256"]
        assert len(query["code_challenge"][0]) == 43
        assert len(query["state"][0]) == 43
        states.add(query["state"][0])
    assert len(states) == 3


@pytest.mark.promise("P14")
@pytest.mark.case(19)
def test_a_callback_in_another_browser_is_refused_and_its_state_is_used_up(
    customer: Customer, callback: tuple[Any, str]
) -> None:
    browser, url = callback
    assert ends(customer.browser().get(url)) == "FLOW_STATE_INVALID"
    assert ends(browser.get(url)) == "FLOW_STATE_INVALID"


@pytest.mark.promise("P14")
@pytest.mark.case(19)
@pytest.mark.parametrize("state", [None, "", "x" * 43, "é"])
def test_a_callback_with_a_missing_or_foreign_state_is_refused(state: str | None, callback: tuple[Any, str]) -> None:
    browser, url = callback
    assert ends(browser.get(changed(url, state=state))) == "FLOW_STATE_INVALID"


@pytest.mark.promise("P14")
@pytest.mark.case(19)
def test_a_used_state_is_refused_and_the_connection_stands(customer: Customer, config: str) -> None:
    browser, url = customer.begin(config, "twice")
    back = customer.allow(browser, url)
    cookies = dict(browser.cookies)
    assert ends(browser.get(back)) == "/connect/done"
    again = customer.browser()
    again.headers["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    assert ends(again.get(back)) == "FLOW_STATE_INVALID"
    assert len(customer.get("/connections", end_user_id="twice").json()["connections"]) == 1


@pytest.mark.promise("P14")
@pytest.mark.case(19)
def test_of_two_callbacks_at_once_one_wins(customer: Customer, config: str, playground: Any) -> None:
    browser, url = customer.begin(config, "racer")
    back = customer.allow(browser, url)
    cookie = "; ".join(f"{name}={value}" for name, value in dict(browser.cookies).items())
    before = playground.counts().get("authorization_code", 0)
    outcomes: list[str] = []
    clients = [customer.browser() for _ in range(6)]

    def call(client: Any) -> None:
        client.headers["cookie"] = cookie
        outcomes.append(ends(client.get(back)))

    threads = [threading.Thread(target=call, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["/connect/done"] + ["FLOW_STATE_INVALID"] * 5
    assert playground.counts()["authorization_code"] - before == 1


@pytest.mark.case(18)
@pytest.mark.parametrize("iss", [None, "", "https://other.example", "trailing slash"])
def test_an_answer_of_another_issuer_or_without_one_is_refused(
    iss: str | None, callback: tuple[Any, str], stack: Stack, playground: Any
) -> None:
    browser, url = callback
    before = playground.counts().get("authorization_code", 0)
    wrong = stack.layout.playground_issuer + "/" if iss == "trailing slash" else iss
    assert ends(browser.get(changed(url, iss=wrong))) == "FLOW_ISSUER_MISMATCH"
    assert playground.counts().get("authorization_code", 0) == before


@pytest.mark.case(19)
def test_an_error_of_the_provider_is_told_and_nothing_is_left(customer: Customer, config: str) -> None:
    browser, url = customer.begin(config, "denier")
    assert ends(browser.get(customer.allow(browser, url, answer="deny"))) == "PROVIDER_DENIED"
    assert customer.get("/connections", end_user_id="denier").json()["connections"] == []


def test_a_wrong_client_secret_is_told_and_nothing_is_left(customer: Customer, stack: Stack) -> None:
    wrong = customer.configure(stack.layout.playground_issuer, client_secret="wrong")["id"]
    browser, url = customer.begin(wrong, "misconfigured")
    assert ends(browser.get(customer.allow(browser, url))) == "CODE_EXCHANGE_FAILED"
    assert customer.get("/connections", end_user_id="misconfigured").json()["connections"] in (
        [],
        [
            each
            for each in customer.get("/connections", end_user_id="misconfigured").json()["connections"]
            if each["state"] != "active"
        ],
    )


@pytest.mark.promise("P16")
def test_the_form_of_the_hosted_page_is_taken_from_our_own_page_alone(customer: Customer, config: str) -> None:
    session = {"end_user_id": "forger", "provider_config_ids": [config]}
    url = customer.post("/connect-sessions", session).json()["url"]
    browser = customer.browser()
    page = browser.get(url).text
    csrf = page.split('name="csrf" value="')[1].split('"')[0]
    good = {"csrf": csrf, "provider_config_id": config}
    own = {"origin": customer.rest}
    for data, headers in (
        (good, {"origin": "https://evil.example"}),
        (good, {"origin": "null"}),
        (good, {}),
        ({**good, "csrf": "0" * 64}, own),
        ({"provider_config_id": config}, own),
    ):
        assert browser.post(url, data=data, headers=headers).status_code == 403
    stolen = customer.browser()
    assert stolen.post(url, data=good, headers=own).status_code == 403
    assert browser.post(url, data=good, headers=own).status_code == 303


@pytest.mark.promise("P16")
def test_the_cookie_and_the_page_are_locked_down(customer: Customer, config: str) -> None:
    session = {"end_user_id": "looker", "provider_config_ids": [config]}
    answer = customer.browser().get(customer.post("/connect-sessions", session).json()["url"])
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-authpipe_flow=")
    for word in ("Secure", "HttpOnly", "Path=/", "SameSite=lax", "Max-Age=600"):
        assert word in cookie
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.case(18)
def test_an_issuer_whose_metadata_names_another_is_refused(customer: Customer, stack: Stack) -> None:
    body = {"issuer": stack.layout.playground_issuer + "/", "client_id": "x", "client_secret": "y"}
    answer = customer.post("/provider-configs", body)
    assert (answer.status_code, answer.json()["reason"]) == (400, "ISSUER_METADATA_UNUSABLE")


def test_a_session_that_does_not_exist_is_told_so_on_a_page(customer: Customer) -> None:
    answer = customer.browser().get(f"{customer.rest}/connect/{'x' * 43}")
    assert answer.status_code == 404
    assert "Make a new one" in answer.text


_FLOWS = "authpipe_oauth_coordinator.domain.flows"
MUTANTS: dict[str, tuple[Any, tuple[str, str, str, str], dict[str, Any]]] = {
    "the browser's cookie is not compared": (
        test_a_callback_in_another_browser_is_refused_and_its_state_is_used_up,
        (
            "coordinator",
            _FLOWS,
            "if not hmac.compare_digest(_hash_bytes(callback.binding), flow.binding_hash):",
            "if False:",
        ),
        {},
    ),
    "a state is not used up": (
        test_a_used_state_is_refused_and_the_connection_stands,
        (
            "coordinator",
            "authpipe_oauth_coordinator.store.flows",
            "where state_hash = :hash and used_at is null",
            "where state_hash = :hash",
        ),
        {},
    ),
    "the issuer of an answer is not compared": (
        test_an_answer_of_another_issuer_or_without_one_is_refused,
        ("coordinator", _FLOWS, "if differs and (callback.iss or flow.endpoints.iss_required):", "if False:"),
        {"iss": "https://other.example"},
    ),
    "a missing issuer is taken": (
        test_an_answer_of_another_issuer_or_without_one_is_refused,
        ("coordinator", _FLOWS, " and (callback.iss or flow.endpoints.iss_required)", " and callback.iss"),
        {"iss": None},
    ),
}


@pytest.mark.case(18)
@pytest.mark.case(19)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_attacks_see_a_control_that_is_switched_off(mutant: str, notices: Any) -> None:
    attack, patch, given = MUTANTS[mutant]
    notices(attack, patch, **given)
