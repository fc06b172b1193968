"""Whoever keeps connections open and says nothing must not hold up others."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

IDLE = 600


@pytest.mark.case(20)
def test_hundreds_of_idle_connections_hold_nobody_up(stack: Stack, new_customer: Callable[..., Customer]) -> None:
    context = ssl.create_default_context(cafile=str(stack.public_ca.certificate_file))
    host, port = stack.layout.rest_url.removeprefix("https://").split(":")
    with ExitStack() as opened:
        for _ in range(IDLE):
            raw = opened.enter_context(socket.create_connection((host, int(port)), timeout=10))
            opened.enter_context(context.wrap_socket(raw, server_hostname=host))
        # Idle connections are closed after half a minute: whoever waits for that gives up before.
        answer = new_customer().http.get("/v1/connections", timeout=20)
        assert answer.status_code == 200
