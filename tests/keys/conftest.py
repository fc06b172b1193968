"""A system of their own for the tests of keys, with two replicas of keyservice: what they rotate and destroy is theirs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

ROOT = Path(__file__).resolve().parents[2]
KEYSERVICES = ("keyservice-user-credentials", "keyservice-user-credentials-2")
GRACE_DAYS = 2 / 86_400


@pytest.fixture(scope="session")
def keys() -> Iterator[Stack]:
    """The whole system with two replicas of keyservice, in which a disabled KEK can be destroyed after two seconds."""
    home = ROOT / ".authpipe" / "test-keys"
    settings = {"keyservice-user-credentials": {"kek_grace_days": GRACE_DAYS}}

    def make() -> Stack:
        return Stack(home, lambda _: None, replicas=KEYSERVICES[:1], settings=settings)

    make().erase()
    running = make()
    running.up()
    yield running
    running.down()


@pytest.fixture
def tenant(keys: Stack) -> Iterator[Customer]:
    """A customer with a workspace of its own."""
    workspace, key = asyncio.run(keys.create_workspace("keys"))
    found = Customer(keys.layout.rest_url, str(keys.public_ca.certificate_file), key.decode(), workspace)
    yield found
    found.close()


Admin = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def admin(keys: Stack) -> Admin:
    """Runs authpipe-admin keys, as the first operator or as another one."""

    def run(*arguments: str, operator: str = "operator") -> subprocess.CompletedProcess[str]:
        config = keys.layout.configs / f"{operator}.json"
        command = [sys.executable, "-m", "authpipe_admin", "--config", str(config), "keys", *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "COLUMNS": "200"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)

    return run


@pytest.fixture
def database(keys: Stack) -> Callable[..., list[tuple[Any, ...]]]:
    """Reads or writes keyservice's own database, as PostgreSQL's superuser."""

    def execute(statement: str, *values: object) -> list[tuple[Any, ...]]:
        conninfo = keys.clusters["core"].conninfo("dba", "keyservice_user_credentials")
        with psycopg.connect(**conninfo, autocommit=True) as connection:  # type: ignore[arg-type]
            done = connection.execute(statement.encode(), values)
            return done.fetchall() if done.description else []

    return execute
