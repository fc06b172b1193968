"""A full run with recognisable secrets at debug level; then everything that the system left is searched (promise P07)."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import psutil
import pytest
from authpipe_devstack.layout import CLUSTERS, PROCESSES
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), reverse=True)


def forms(secret: str) -> Iterator[bytes]:
    """Gives the ways in which a secret could stand somewhere."""
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield raw.hex().encode()
    for shift in range(3):
        # Base64 of it at each of the three alignments, without the edges that depend on its neighbours.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"x" * shift + raw)[4:-4]


@pytest.fixture(scope="module")
def secrets_used(stack: Stack, customer: Customer, playground: Any) -> dict[str, str]:
    """Runs through everything with recognisable secrets and collects those that others made."""
    used = {
        "client secret": "CANARY-client-secret-5f2b7c1d9e",
        "imported key": "CANARY-imported-key-0a1b2c3d4e",
        "password": "CANARY-password-99aa88bb77",
        "webhook secret": "CANARY-webhook-secret-1122334455",
        "imported access token": "CANARY-access-token-66778899",
        "imported refresh token": "CANARY-refresh-token-aabbccdd",
        "api key": customer.http.headers["authorization"].removeprefix("Bearer "),
    }
    config = customer.configure(stack.layout.playground_issuer, client_secret=used["client secret"])["id"]
    customer.import_api_key(used["imported key"])
    bodies: list[dict[str, Any]] = [
        {"kind": "basic", "provider": "p", "username": "user", "password": used["password"]},
        {"kind": "webhook_secret", "provider": "p", "webhook_secret": used["webhook secret"]},
        {
            "kind": "oauth2",
            "provider_config_id": config,
            "access_token": used["imported access token"],
            "refresh_token": used["imported refresh token"],
            "expire_time": "2020-01-01T00:00:00Z",
        },
    ]
    for body in bodies:
        made = customer.post("/connections", {"end_user_id": "canary", **body}).raise_for_status().json()
        customer.token(made["id"])
    browser, url = customer.begin(config, "canary")
    used["state"] = parse_qs(urlsplit(url).query)["state"][0]
    used["flow cookie"] = browser.cookies["__Host-authpipe_flow"]
    back = customer.allow(browser, url)
    used["code"] = parse_qs(urlsplit(back).query)["code"][0]
    browser.get(back)
    session = customer.post("/connect-sessions", {"end_user_id": "canary"}).json()["url"]
    used["connect session"] = session.rpartition("/")[2]
    customer.browser().get(session)
    connection = customer.get("/connections", end_user_id="canary").json()["connections"][0]["id"]
    used["access token"] = customer.token(connection).json()["access_token"]
    time.sleep(10.1)
    customer.post(f"/connections/{connection}/refresh").raise_for_status()
    used["refreshed access token"] = customer.token(connection).json()["access_token"]
    # Bad input of every kind that carries a secret.
    customer.post("/connections", {"kind": used["imported key"], "end_user_id": "x"})
    customer.get(f"/connections/{quote(used['imported key'])}/token")
    customer.browser().get(changed_state(back))
    customer.http.get("/v1/connections", headers={"authorization": "Bearer " + used["api key"][:-1] + "0"})
    customer.delete(f"/connections/{connection}")
    time.sleep(16)  # metrics are written every fifteen seconds
    return used


def changed_state(url: str) -> str:
    return re.sub(r"state=[^&]+", "state=wrong", url)


def search(where: str, text: bytes, used: dict[str, str]) -> list[str]:
    return [f"{name} in {where}" for name, secret in used.items() if any(form in text for form in forms(secret))]


def test_the_search_finds_what_is_there() -> None:
    used = {"it": "CANARY-client-secret-5f2b7c1d9e"}
    for form in (used["it"], quote(used["it"]), base64.b64encode(b"ab" + used["it"].encode() + b"cd").decode()):
        assert search("here", b"before " + form.encode() + b" after", used)


@pytest.mark.promise("P07")
def test_no_file_log_span_or_metric_holds_a_secret(stack: Stack, secrets_used: dict[str, str]) -> None:
    found: list[str] = []
    seen = 0
    for path in stack.layout.home.rglob("*"):
        if not path.is_file() or path == stack.layout.api_key_file or path.name == "oidc-provider.json":
            continue
        seen += 1
        found += search(str(path.relative_to(stack.layout.home)), path.read_bytes(), secrets_used)
    assert seen > 100
    for process in PROCESSES:
        telemetry = (stack.layout.logs / f"{process.name}.telemetry.json").read_text()
        assert '"trace_id"' in telemetry or process.name in {"audit"}, f"{process.name} left no span: nothing was shown"
    assert found == []


@pytest.mark.promise("P07")
@pytest.mark.promise("P10")
def test_no_database_holds_a_secret(stack: Stack, secrets_used: dict[str, str]) -> None:
    found: list[str] = []
    for name in CLUSTERS:
        cluster = stack.clusters[name]
        leaf = cluster.client("dba")
        for database in cluster.databases:
            environment = {
                "PGHOST": cluster.host,
                "PGHOSTADDR": "127.0.0.1",
                "PGPORT": str(cluster.port),
                "PGUSER": "dba",
                "PGSSLMODE": "verify-full",
                "PGSSLCERT": str(leaf.certificate),
                "PGSSLKEY": str(leaf.key),
                "PGSSLROOTCERT": str(cluster.ca.certificate_file),
                "PATH": os.environ["PATH"],
            }
            dump = subprocess.run(
                [str(BINARIES[0]) if BINARIES else "pg_dump", "--data-only", database],
                env=environment,
                capture_output=True,
                check=True,
            ).stdout
            assert b"COPY" in dump
            found += search(database, dump, secrets_used)
            # What stands there as bytes is shown as hex: bytea as pg_dump writes it.
            found += search(
                f"{database}, bytes", b"\n".join(map(_unhex, re.findall(rb"\\\\x([0-9a-f]+)", dump))), secrets_used
            )
    assert found == []


def _unhex(digits: bytes) -> bytes:
    return bytes.fromhex(digits.decode())


@pytest.mark.promise("P07")
def test_no_command_line_or_environment_holds_a_secret(stack: Stack, secrets_used: dict[str, str]) -> None:
    pins = {f"PIN of {p.hsm}": (stack.layout.home / "hsm" / p.hsm / "pin").read_text() for p in PROCESSES if p.hsm}
    used = {**secrets_used, **pins}
    found: list[str] = []
    for process in PROCESSES:
        running = psutil.Process(stack.pid(process.name))
        found += search(f"command line of {process.name}", "\0".join(running.cmdline()).encode(), used)
        try:
            environment = Path(f"/proc/{running.pid}/environ").read_bytes()
        except PermissionError:
            continue  # an ordinary user may not even look
        found += search(f"environment of {process.name}", environment, used)
    assert found == []


@pytest.mark.promise("P08")
def test_no_listing_or_error_shows_a_value(customer: Customer, secrets_used: dict[str, str]) -> None:
    found: list[str] = []
    for path in ("/connections?page_size=200", "/provider-configs?page_size=200", "/audit/events?page_size=200"):
        found += search(path, customer.http.get(f"/v1{path}").content, secrets_used)
    assert found == []
    shown = customer.get("/connections", page_size=200).json()["connections"]
    assert any(each["masked"] == "CANA…" for each in shown)
