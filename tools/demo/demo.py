"""`make demo`: the whole story without a person, against a real Provider process. Exit 0 only if all of it held."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from authpipe_devstack.stack import Stack, StackError
import grpc
import httpx2
import psycopg
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_testing.customer import Customer
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
_console = Console(highlight=False)


def step(title: str) -> None:
    """Begins a step of the story."""
    _console.print(f"\n[bold]{title}[/bold]")


def show(text: str) -> None:
    """Shows what came of it."""
    _console.print(f"  {text}", soft_wrap=True)


def hold(condition: object, sentence: str) -> None:
    """Shows that something held.

    Raises:
        SystemExit: It did not.
    """
    if not condition:
        _console.print(f"  [red]✗ {sentence}[/red]")
        sys.exit(f"The demo stopped: it does not hold that {sentence}")
    _console.print(f"  [green]✓[/green] {sentence}")


def short(token: str) -> str:
    """Shows the beginning of a token of the playground."""
    return f"{token[:9]}…"


def tell(stack: Stack) -> None:
    """Tells the story."""
    provider = httpx2.Client(base_url=stack.layout.playground_issuer, verify=trusting(stack))
    step("1. A workspace, as its operator makes it")
    workspace, key = asyncio.run(stack.create_workspace("Demo"))
    customer = Customer(stack.layout.rest_url, str(stack.public_ca.certificate_file), key.decode())
    hold(re.fullmatch(rb"ap_test_\w{49}", key), f"workspace {workspace} has an API key like ap_test_…")

    step("2. A provider configuration, by issuer URL alone")
    config = customer.configure(stack.layout.playground_issuer, client_secret="the-client-secret-of-the-demo-2c9d")
    hold(
        config["client_secret_masked"] == "" and "the-client-secret" not in json.dumps(config),
        "the client secret is write only",
    )
    show(f"{config['id']} at {config['token_endpoint']}")

    step("3. Connect: hosted page, PKCE, state bound to the browser")
    provider.post("/playground/life", data={"seconds": "8"})
    browser, url = customer.begin(config["id"], "ada")
    hold("code_challenge_method=S256" in url and "state=" in url, "the authorization request has PKCE S256 and a state")
    callback = customer.allow(browser, url)
    with customer.browser() as other:
        refused = other.get(callback).headers["location"]
    hold("FLOW_STATE_INVALID" in refused, "the callback in another browser is refused")
    connection = customer.connect(config["id"], "ada")
    show(f"{connection} is {customer.get(f'/connections/{connection}').json()['state']}")

    step("4. Serve, by REST and by gRPC")
    first = customer.token(connection).raise_for_status().json()["access_token"]
    credentials = grpc.ssl_channel_credentials(stack.public_ca.certificate_file.read_bytes())
    with grpc.secure_channel(stack.layout.grpc_address, credentials) as channel:
        request = gateway_pb2.GetTokenRequest(connection_id=connection)
        metadata = (("authorization", f"Bearer {key.decode()}"),)
        by_grpc = gateway_pb2_grpc.GatewayStub(channel).GetToken(request, metadata=metadata, timeout=10)
    hold(by_grpc.access_token == first, "REST and gRPC serve the same token")
    hold(
        provider.get("/me", headers={"authorization": f"Bearer {first}"}).status_code == 200,
        "and the Provider knows it",
    )

    step("5. Expiry: the token is refreshed before it is served")
    provider.post("/playground/life", data={"seconds": "3600"})
    time.sleep(4)
    before = provider.get("/playground/counts").json().get("refresh_token", 0)
    second = customer.token(connection).raise_for_status().json()["access_token"]
    hold(second != first, f"{short(first)} ended, {short(second)} is served")
    hold(provider.get("/playground/counts").json()["refresh_token"] == before + 1, "the Provider saw one refresh")

    step("6. Tampering: a PostgreSQL superuser changes one byte of the stored record")
    with psycopg.connect(**stack.clusters["vault"].conninfo("dba", "vault"), autocommit=True) as vault:  # type: ignore[arg-type]
        where = "connection_id = %s and record_class = 1"
        row = vault.execute(f"select record from records where {where}", (connection,)).fetchone()
        assert row is not None
        good = bytes(row[0])
        hold(second.encode() not in good, "what is stored does not show the token")
        vault.execute(f"update records set record = %s where {where}", (good[:-1] + bytes([good[-1] ^ 1]), connection))
        refusal = customer.token(connection).json()
        hold(refusal["reason"] == "RECORD_INTEGRITY_VIOLATION", f"refused: {refusal['detail']}")
        vault.execute(f"update records set record = %s where {where}", (good, connection))
    hold(customer.token(connection).status_code == 200, "restored, it is served again")

    step("7. Disconnect: not served from this second, revoked, erased")
    state = customer.delete(f"/connections/{connection}").json()["state"]
    hold(state == "disconnected", "the connection is disconnected")
    hold(customer.token(connection).json()["reason"] == "CONNECTION_DISCONNECTED", "nothing is served")
    hold(
        provider.get("/me", headers={"authorization": f"Bearer {second}"}).status_code == 401,
        "the Provider has revoked the token",
    )

    step("8. The audit trail of it all")
    wanted = {
        "CONNECTION_CREATED",
        "RECORD_KEY_RELEASED",
        "TOKEN_REFRESHED",
        "TOKEN_REVOKED",
        "CONNECTION_DISCONNECTED",
    }
    events: list[dict[str, Any]] = []
    for _ in range(50):
        events = customer.events(target=connection)
        if wanted <= {event["event"] for event in events}:
            break
        time.sleep(0.2)
    for event in reversed(events):
        note = event["purpose"] or event["reason"]
        show(f"[dim]{event['leaf_index']:4}[/dim] {event['event']:26} {event['emitter']:28} {note}")
    hold(wanted <= {event["event"] for event in events}, "every step is in the log")
    provider.close()
    customer.close()


def trusting(stack: Stack) -> Any:
    """Believes the public CA."""
    return ssl.create_default_context(cafile=str(stack.public_ca.certificate_file))


def main() -> None:
    """Brings a system of its own up, tells the story, takes it down."""
    home = ROOT / ".authpipe" / "demo"
    stack = Stack(home, lambda text: _console.print(f"[dim]· {text}[/dim]"))
    stack.erase()
    stack = Stack(home, lambda text: _console.print(f"[dim]· {text}[/dim]"))
    try:
        stack.up()
        tell(stack)
    except StackError as error:
        sys.exit(str(error))
    finally:
        stack.down()
    _console.print("\n[bold green]All of it held.[/bold green]")


if __name__ == "__main__":
    main()
