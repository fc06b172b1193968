"""A member of a workspace: a browser without a screen, and a passkey in software."""

from __future__ import annotations

import random
import ssl
from typing import Any, Self

import httpx2

from authpipe_testing.passkey import Passkey

SESSION_COOKIE = "__Host-authpipe_session"


class Member:
    """Somebody with a passkey.

    Args:
        dashboard: The dashboard's address.
        ca_file: The CA to believe.
    """

    def __init__(self, dashboard: str, ca_file: str) -> None:
        self.passkey = Passkey(dashboard)
        context = ssl.create_default_context(cafile=ca_file)
        # What a browser sends of itself with what a page of ours asks for.
        headers = {"sec-fetch-site": "same-origin", "origin": dashboard}
        # An address of one's own, as people have: sign-ins are counted by it.
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"  # noqa: S311  # no secret
        transport = httpx2.HTTPTransport(verify=context, local_address=self.address)
        self.http = httpx2.Client(transport=transport, headers=headers, base_url=dashboard, timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    @property
    def session(self) -> str:
        """Gives the token of the session, which no script of a page can read."""
        return next(each.value or "" for each in self.http.cookies.jar if each.name == SESSION_COOKIE)

    def begin_joining(self, invitation: str) -> httpx2.Response:
        """Asks what a passkey is made by."""
        return self.http.post("/dashboard/joining:begin", json={"invitation": invitation})

    def join(self, url: str) -> httpx2.Response:
        """Joins as a browser does that opens the address of an invitation."""
        invitation = url.partition("#")[2]
        begun = self.begin_joining(invitation)
        if begun.status_code != 200:
            return begun
        return self.finish_joining(invitation, self.passkey.create(begun.json()))

    def finish_joining(self, invitation: str, credential: dict[str, Any]) -> httpx2.Response:
        """Sends a new passkey."""
        return self.http.post("/dashboard/joining:finish", json={"invitation": invitation, "credential": credential})

    def begin_sign_in(self) -> dict[str, Any]:
        """Asks what the passkey is to sign."""
        return dict(self.http.post("/dashboard/sign-in:begin").raise_for_status().json())

    def sign_in(self) -> httpx2.Response:
        """Signs in."""
        return self.finish_sign_in(self.passkey.get(self.begin_sign_in()))

    def finish_sign_in(self, credential: dict[str, Any]) -> httpx2.Response:
        """Sends what the passkey has signed."""
        return self.http.post("/dashboard/sign-in:finish", json={"credential": credential})

    def sign_out(self) -> httpx2.Response:
        """Signs out."""
        return self.http.post("/dashboard/sign-out")

    def members(self) -> dict[str, str]:
        """Gives the members' ids by their addresses."""
        found = self.http.get("/v1/members").raise_for_status().json()
        return {each["email"]: each["id"] for each in found["members"]}

    def invite(self, email: str, role: str) -> httpx2.Response:
        """Invites somebody."""
        return self.http.post("/v1/members", json={"email": email, "role": role})
