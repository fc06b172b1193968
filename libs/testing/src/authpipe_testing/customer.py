"""A customer: an application's backend that uses the REST API, and an end user's browser without a screen."""

from __future__ import annotations

import re
import ssl
import time
from typing import Any, Self

import httpx2


class Customer:
    """A backend with an API key.

    Args:
        rest: The address of REST.
        ca_file: The CA to believe.
        api_key: The API key; empty: none is sent.
        workspace: Its workspace, where a test has to name it.
    """

    def __init__(self, rest: str, ca_file: str, api_key: str, workspace: str = "") -> None:
        self.rest = rest
        self.workspace = workspace
        self._browsers: list[httpx2.Client] = []
        self._context = ssl.create_default_context(cafile=ca_file)
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.http = httpx2.Client(verify=self._context, headers=headers, base_url=rest, timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections, its browsers' too."""
        self.http.close()
        for browser in self._browsers:
            browser.close()

    def get(self, path: str, **parameters: Any) -> httpx2.Response:
        """Reads something below /v1."""
        return self.http.get(f"/v1{path}", params=parameters)

    def post(self, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
        """Makes something below /v1."""
        return self.http.post(f"/v1{path}", json=body)

    def delete(self, path: str) -> httpx2.Response:
        """Ends something below /v1."""
        return self.http.delete(f"/v1{path}")

    def configure(self, issuer: str, **more: Any) -> dict[str, Any]:
        """Makes a provider configuration by issuer."""
        body = {
            "issuer": issuer,
            "client_id": "authpipe-test",
            "client_secret": "a-client-secret-of-the-test-0123456789",
            "scopes": ["profile"],
            **more,
        }
        return dict(self.post("/provider-configs", body).raise_for_status().json())

    def import_api_key(self, api_key: str, end_user: str = "user-1") -> dict[str, Any]:
        """Imports an API key."""
        body = {
            "kind": "api_key",
            "end_user_id": end_user,
            "provider": "acme",
            "api_key": api_key,
            "allowed_hosts": ["api.acme.example"],
        }
        return dict(self.post("/connections", body).raise_for_status().json())

    def browser(self) -> httpx2.Client:
        """Gives a browser: it keeps cookies and follows nothing by itself."""
        browser = httpx2.Client(verify=self._context, timeout=60, trust_env=False)
        self._browsers.append(browser)
        return browser

    def begin(self, config_id: str, end_user: str = "user-1") -> tuple[httpx2.Client, str]:
        """Opens the hosted page and chooses; gives the browser and the Provider's authorization URL."""
        session = {"end_user_id": end_user, "provider_config_ids": [config_id]}
        url = self.post("/connect-sessions", session).raise_for_status().json()["url"]
        browser = self.browser()
        page = browser.get(url).raise_for_status().text
        csrf = re.findall(r'name="csrf" value="(\w+)"', page)[0]
        answer = browser.post(url, data={"csrf": csrf, "provider_config_id": config_id}, headers={"origin": self.rest})
        return browser, answer.headers["location"]

    def allow(self, browser: httpx2.Client, url: str, answer: str = "allow") -> str:
        """Answers the playground Provider's question; gives the URL of the callback."""
        return str(browser.post(url, data={"answer": answer, "account": "ada"}).headers["location"])

    def connect(self, config_id: str, end_user: str = "user-1") -> str:
        """Connects an account at the playground Provider; gives the connection."""
        browser, url = self.begin(config_id, end_user)
        done = browser.get(self.allow(browser, url)).headers["location"]
        if done != "/connect/done":
            raise AssertionError(done)
        listed = self.get("/connections", end_user_id=end_user).raise_for_status().json()["connections"]
        return str(listed[0]["id"])

    def token(self, connection: str, **parameters: Any) -> httpx2.Response:
        """Asks for the live credential."""
        return self.get(f"/connections/{connection}/token", **parameters)

    def health(self, connection: str) -> str:
        """Has a credential tried that is new, unless the schedule has just done so or is at it; gives its health."""
        asked = self.post(f"/connections/{connection}/health-checks")
        if asked.status_code not in {200, 429}:
            raise AssertionError(asked.text)
        ends = time.monotonic() + 20
        while True:
            health = self.get(f"/connections/{connection}").raise_for_status().json()["health"]
            if health or time.monotonic() > ends:
                return str(health and health["state"])
            time.sleep(0.1)

    def events(self, **filters: Any) -> list[dict[str, Any]]:
        """Reads the log, newest first."""
        return list(self.get("/audit/events", page_size=200, **filters).raise_for_status().json()["events"])
