"""What was begun and left: a flow nobody came back to, a draft nobody activated, a deletion that was interrupted. Nothing stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

Superuser = Callable[[str, str], psycopg.Connection[Any]]


def count(database: psycopg.Connection[Any], table: str, target: str, where: str = "true") -> int:
    row = database.execute(f"select count(*) from {table} where connection_id = %s and {where}", (target,)).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0])


@pytest.mark.promise("P14")
def test_a_flow_nobody_came_back_to_leaves_no_code_verifier_and_no_key(
    customer: Customer, config: str, superuser: Superuser, wait_for: Callable[..., Any]
) -> None:
    browser, url = customer.begin(config, "wanderer")
    back = customer.allow(browser, url)
    with superuser("core", "coordinator") as coordinator:
        row = coordinator.execute("select connection_id from flows where end_user_id = 'wanderer'").fetchone()
        assert row is not None
        flow = row[0]
        with superuser("vault", "vault") as vault, superuser("core", "keyservice_user_credentials") as keys:
            assert count(vault, "records", flow) == 1
            assert count(keys, "connection_keys", flow, "state = 'active'") == 1
            coordinator.execute(
                "update flows set expires_at = now() - interval '1 hour' where connection_id = %s", (flow,)
            )
            assert wait_for(lambda: count(keys, "connection_keys", flow, "state = 'destroyed'") == 1, 20)
            assert wait_for(lambda: count(vault, "records", flow) == 0)
    assert wait_for(lambda: customer.events(target=flow, event="FLOW_ENDED"))
    # Its state is worth nothing any more.
    assert "FLOW_STATE_INVALID" in browser.get(back).headers["location"]


def test_a_flow_that_was_refused_leaves_nothing_either(
    customer: Customer, config: str, superuser: Superuser, wait_for: Callable[..., Any]
) -> None:
    browser, url = customer.begin(config, "refused-wanderer")
    browser.get(customer.allow(browser, url, answer="deny"))
    with superuser("core", "coordinator") as coordinator, superuser("vault", "vault") as vault:
        row = coordinator.execute("select connection_id from flows where end_user_id = 'refused-wanderer'").fetchone()
        assert row is not None
        flow = row[0]
        assert wait_for(
            lambda: {"FLOW_STATE_USED", "FLOW_REFUSED"} <= {e["event"] for e in customer.events(target=flow)}
        )
        coordinator.execute("update flows set expires_at = now() - interval '1 hour' where connection_id = %s", (flow,))
        assert wait_for(lambda: count(vault, "records", flow) == 0, 20)


def test_a_flow_that_led_to_a_connection_is_left_alone(
    customer: Customer, config: str, superuser: Superuser, wait_for: Callable[..., Any]
) -> None:
    connection = customer.connect(config, "arrived")
    with superuser("core", "coordinator") as coordinator:
        coordinator.execute(
            "update flows set expires_at = now() - interval '1 hour' where connection_id = %s", (connection,)
        )

        def swept() -> bool:
            row = coordinator.execute("select swept from flows where connection_id = %s", (connection,)).fetchone()
            return bool(row and row[0])

        assert wait_for(swept, 20)
    assert customer.token(connection).status_code == 200


@pytest.mark.parametrize("state", ["draft", "deleted"])
def test_the_client_secret_of_a_forsaken_provider_configuration_is_erased(
    state: str, customer: Customer, stack: Stack, superuser: Superuser, wait_for: Callable[..., Any]
) -> None:
    config = customer.configure(stack.layout.playground_issuer)["id"]
    with superuser("core", "coordinator") as coordinator, superuser("clientsecrets", "clientsecrets") as secrets:
        assert count(secrets, "records", config) == 1
        # As if the process had died between its two steps.
        coordinator.execute(
            "update provider_configs set state = %s, created_at = now() - interval '1 hour' where id = %s",
            (state, config),
        )
        assert wait_for(lambda: count(secrets, "records", config) == 0, 20)
    assert wait_for(lambda: customer.events(target=config, event="CLIENT_SECRET_ERASED"))
