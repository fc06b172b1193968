"""The log as a customer's auditor sees it: exports, the command that verifies them, and a second implementation of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str


@dataclass
class Auditor:
    """A customer's auditor, with a folder of his own.

    Attributes:
        folder: What he keeps.
        stack: The system, of which he knows what is public.
        customer: Whose log he looks at.
    """

    folder: Path
    stack: Stack
    customer: Customer

    @property
    def seen(self) -> Path:
        """Where it is remembered what he saw."""
        return self.folder / "seen.json"

    def run(self, *arguments: str) -> Said:
        """Runs authpipe."""
        command = [sys.executable, "-m", "authpipe_cli", *arguments]
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return Said(done.returncode, done.stdout + done.stderr)

    def export(self, name: str = "export.jsonl", *more: str) -> Path:
        """Exports the log."""
        file, key = self.folder / name, self.folder / "key"
        key.touch(0o600)
        key.write_text(str(self.customer.http.headers["authorization"]).removeprefix("Bearer "))
        ca = str(self.stack.public_ca.certificate_file)
        said = self.run(
            "audit", "export", str(file), "--url", self.stack.layout.rest_url, "--key-file", str(key), "--ca", ca,
            "--seen", str(self.seen), *more,
        )  # fmt: skip
        assert said.code == 0, said.out
        return file

    def covered(self, name: str = "export.jsonl") -> Path:
        """Exports the log when a statement covers every event of his: there is one every second here."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            file = self.export(name)
            done = self.second("export", str(file), *[line["key"] for line in lines_of(file) if "export" in line])
            assert done.returncode == 0, done.stderr
            if all(each["covered"] == each["position"] for each in json.loads(done.stdout)):
                return file
            time.sleep(0.5)
        raise AssertionError("No statement covers the newest events.")

    def verify(self, file: Path, *more: str) -> Said:
        """Verifies an export."""
        return self.run("audit", "verify", str(file), "--seen", str(self.seen), *more)

    def keys(self) -> dict[str, str]:
        """Gives the log's verifier keys, as he knows them."""
        return {origin: str(log["key"]) for origin, log in json.loads(self.seen.read_text()).items()}

    def second(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the second implementation."""
        node = shutil.which("node")
        assert node is not None
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(self.stack.public_ca.certificate_file)}
        command = [node, str(ROOT / "tests" / "node" / "log.mjs"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="session")
def audited(stack: Stack, new_customer: Callable[..., Customer]) -> Customer:
    """A customer who has done a few things that are in the log and covered by a statement."""
    made = new_customer()
    made.configure(stack.layout.playground_issuer)
    for number in range(3):
        connection = made.import_api_key(f"sk_live_for-the-log-{number}-0123456789")["id"]
        assert made.token(connection).status_code == 200
    settle(made, 3)
    return made


@pytest.fixture
def auditor(tmp_path: Path, stack: Stack, audited: Customer) -> Auditor:
    """An auditor of that customer, who has seen nothing before."""
    return Auditor(tmp_path, stack, audited)


def settle(customer: Customer, uses: int) -> None:
    """Waits until so many uses are in the log, and a statement after them is signed."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        page = customer.get("/audit/events", page_size=200).json()
        names = [event["event"] for event in page["events"]]
        if names.count("RECORD_KEY_RELEASED") >= uses and names.count("CONNECTION_CREATED") >= uses:
            time.sleep(3)  # statements come every second here, and so do checkpoints
            return
        time.sleep(0.2)
    raise AssertionError("The log did not settle.")


def lines_of(file: Path) -> list[Any]:
    """Gives the lines of an export."""
    return [json.loads(line) for line in file.read_text().splitlines()]
