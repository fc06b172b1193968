"""The dashboard in a real browser: a person joins with a passkey, reads the log, invites, signs out and in again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.browsing import chromium_flags
from authpipe_testing.customer import Customer
from authpipe_testing.member import SESSION_COOKIE, Member
from playwright.sync_api import Page, sync_playwright


@pytest.fixture(scope="module")
def watched(new_customer: Callable[..., Customer]) -> Customer:
    """A customer whose log the dashboard shows."""
    return new_customer()


@pytest.fixture(scope="module")
def invitation(stack: Stack, watched: Customer) -> str:
    """The address at which its first owner joins."""
    return asyncio.run(stack.invite(watched.workspace, "ada@people.example", "owner"))


@pytest.fixture(scope="module")
def robbed(new_customer: Callable[..., Customer], stack: Stack) -> tuple[Customer, str]:
    """A customer from whom something was stolen, and the address at which an admin joins."""
    customer = new_customer()
    return customer, asyncio.run(stack.invite(customer.workspace, "hopper@people.example", "admin"))


@pytest.fixture
def page(stack: Stack, chromium: str) -> Iterator[Page]:
    """A page of a browser that has a passkey built in; what it complains about fails the test."""
    flags = chromium_flags(trusts=stack.layout.certificates / "public.pem")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_context().new_page()
        complaints: list[str] = []
        page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        devtools = page.context.new_cdp_session(page)
        devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        yield page
        browser.close()
    # Asked before anybody is signed in, the API says no with 401, which browsers note.
    assert [each for each in complaints if "401" not in each] == []


def reads_the_log(page: Page, watched: Customer, shots: Path, wait_for: Callable[..., Any]) -> None:
    """Looks at the log, filters it, opens an event, and exports it."""
    # What the API lists, the page shows: the same events in the same order.
    happened = {"WORKSPACE_CREATED", "API_KEY_CREATED", "CONNECTION_CREATED", "MEMBER_JOINED", "MEMBER_SIGNED_IN"}
    assert wait_for(lambda: happened <= {event["event"] for event in watched.events()})
    table = page.get_by_role("table", name="Audit events")

    def same() -> bool:
        page.get_by_role("button", name="Show").click()
        page.get_by_text("MEMBER_SIGNED_IN").first.wait_for()
        listed = [event["event"] for event in watched.get("/audit/events").json()["events"]]
        return listed == [each.inner_text() for each in table.locator("summary").all()]

    assert wait_for(same)
    page.screenshot(path=shots / "log.png", full_page=True)
    page.get_by_role("textbox", name="Event").fill("MEMBER_JOINED")
    page.get_by_role("button", name="Show").click()
    wait_for(lambda: table.locator("summary").count() == 1)
    table.locator("summary").click()
    assert "trail" in table.inner_text()
    with page.expect_download() as downloading:
        page.get_by_role("link", name="with proofs").click()
    lines = downloading.value.path().read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    assert len(lines) > 1


@pytest.mark.promise("P31", "P33")
def test_a_person_joins_with_a_passkey_reads_the_log_invites_and_signs_in_again(
    stack: Stack, watched: Customer, invitation: str, page: Page, wait_for: Callable[..., Any]
) -> None:
    shots = stack.layout.home / "shots"
    shots.mkdir(parents=True, exist_ok=True)
    watched.import_api_key("key-of-a-provider-0123456789")
    page.goto(invitation)
    page.get_by_role("button", name="Make a passkey").wait_for()
    assert "#" not in page.url, "the invitation does not stay in the address"
    page.screenshot(path=shots / "join.png")
    page.get_by_role("button", name="Make a passkey").click()
    page.get_by_role("heading", name="Log").wait_for()
    assert "ada@people.example, owner" in page.get_by_role("banner").inner_text()
    reads_the_log(page, watched, shots, wait_for)
    page.get_by_role("link", name="Members").click()
    page.get_by_role("textbox", name="E-mail").fill("grace@people.example")
    page.get_by_role("combobox", name="Role").first.select_option("auditor")
    page.get_by_role("button", name="Invite").click()
    url = page.get_by_role("status").get_by_role("code").inner_text()
    page.screenshot(path=shots / "members.png", full_page=True)
    with Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file)) as grace:
        assert grace.join(url).status_code == 204
        assert set(grace.members()) == {"ada@people.example", "grace@people.example"}
    page.get_by_role("link", name="Incidents").click()
    page.get_by_text("Nothing was found.").wait_for()
    (cookie,) = [each["value"] for each in page.context.cookies() if each["name"] == SESSION_COOKIE]
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in with a passkey").wait_for()
    assert page.evaluate("fetch('/v1/members').then((answer) => answer.status)") == 401
    with Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file)) as thief:
        headers = {"cookie": f"{SESSION_COOKIE}={cookie}"}
        assert thief.http.get("/v1/members", headers=headers).status_code == 401, "what was signed out is over"
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.get_by_role("heading", name="Log").wait_for()
    seen = wait_for(lambda: watched.get("/audit/events", event="MEMBER_SIGNED_OUT").json()["events"])
    assert seen[0]["actor"].startswith("member:mem_")


@pytest.mark.promise("P27", "P29", "P33")
def test_an_admin_erases_a_person_revokes_and_freezes_after_a_question(
    robbed: tuple[Customer, str], page: Page, stack: Stack, wait_for: Callable[..., Any]
) -> None:
    customer, invitation = robbed
    kept = customer.import_api_key("sk_live_of-somebody-else-0123456789", "somebody-else")["id"]
    erased = customer.import_api_key("sk_live_of-the-person-0123456789", "the person/1")["id"]
    questions: list[str] = []
    answers = {"yes": False}

    def answer(dialog: Any) -> None:
        questions.append(dialog.message)
        dialog.accept() if answers["yes"] else dialog.dismiss()

    page.on("dialog", answer)
    page.goto(invitation)
    page.get_by_role("button", name="Make a passkey").click()
    page.get_by_role("link", name="Take access away").click()
    page.get_by_role("button", name="Erase an end user").click()
    page.get_by_text("Say who").wait_for()
    page.get_by_label("End user").fill("the person/1")
    page.get_by_role("button", name="Erase an end user").click()
    wait_for(lambda: questions)
    assert customer.token(erased).status_code == 200, "who is asked and says no has done nothing"
    answers["yes"] = True
    page.get_by_role("button", name="Erase an end user").click()
    page.get_by_text("1 connections of the person/1 are being erased.").wait_for()
    page.screenshot(path=stack.layout.home / "shots" / "acts.png", full_page=True)
    assert customer.token(erased).status_code in {404, 409}
    assert customer.token(kept).status_code == 200
    page.get_by_role("button", name="Rotate every token").click()
    page.get_by_text("Rotation rot_").wait_for()
    page.get_by_role("button", name="Freeze the workspace").click()
    page.get_by_text("It is frozen.").wait_for()
    assert wait_for(lambda: customer.token(kept).status_code == 403)
    page.get_by_role("button", name="Revoke all API keys").click()
    page.get_by_text("1 API keys are revoked.").wait_for()
    assert wait_for(lambda: customer.token(kept).status_code == 401)
    assert "1 API keys are revoked, for good." in questions
