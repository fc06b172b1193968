"""A real witness and a feeder beside the real system: cosignatures come back, are published, and count for an auditor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.ports import free_ports
from authpipe_transparency import VerifierKey

if TYPE_CHECKING:
    from conftest import Auditor

TRAILS = ("user-credentials", "client-secrets", "control")


def lines_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@contextmanager
def running(home: Path, stack: Stack, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the witness."""
    certificates = stack.layout.certificates
    command = [
        sys.executable, "-m", "authpipe_witness", "serve", "--home", str(home), "--port", str(port),
        "--certificate", str(certificates / "public.pem"), "--key", str(certificates / "public.key"),
    ]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


def feed(stack: Stack, trail: str, port: int) -> subprocess.CompletedProcess[str]:
    """Carries one checkpoint to the witness and its cosignature back."""
    command = [
        sys.executable, "-m", "authpipe_witness", "feed", "--log", f"{stack.layout.rest_url}/log/{trail}",
        "--witness", f"https://127.0.0.1:{port}", "--ca", str(stack.public_ca.certificate_file), "--every", "0",
    ]  # fmt: skip
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.promise("P31")
def test_checkpoints_are_cosigned_and_an_auditor_who_wants_a_witness_gets_one(
    auditor: Auditor, witness: Any, stack: Stack, superuser: Callable[[str, str], Any]
) -> None:
    (port,) = free_ports(1)
    file = auditor.covered()
    assert auditor.verify(file, "--witness", str(witness.key), "--quorum", "1").code == 10
    witness.know(*(VerifierKey.parse(line["key"]) for line in lines_of(file) if "export" in line))
    with running(witness.folder, stack, port) as process:
        deadline = time.monotonic() + 60
        while True:
            fed = [feed(stack, trail, port) for trail in TRAILS]
            if all(each.returncode == 0 for each in fed):
                file = auditor.export()
                said = auditor.verify(file, "--witness", str(witness.key), "--quorum", "1")
                if said.code == 0:
                    break
            assert time.monotonic() < deadline, [each.stderr for each in fed]
        assert "witness.example/w1" in said.out
        assert auditor.verify(file, "--witness", str(witness.key), "--quorum", "2").code == 10
        note = auditor.customer.http.get("/log/control/checkpoint").text
        with superuser("core", "audit") as audit:
            kept = audit.execute("select count(*) from cosignatures where witness = 'witness.example/w1'").fetchone()
        assert kept[0] >= 3
        assert note.startswith("authpipe.dev/devstack/log/control\n")
        # Killed and started again, it remembers what it has cosigned.
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    with running(witness.folder, stack, port):
        deadline = time.monotonic() + 30
        while (fed_again := feed(stack, "control", port)).returncode:
            assert time.monotonic() < deadline, fed_again.stderr


def test_a_cosignature_of_nobody_or_of_another_checkpoint_is_not_kept(auditor: Auditor) -> None:
    http = auditor.customer.http
    size = int(http.get("/log/control/pending").text.split("\n")[1])
    line = "— witness.example/w1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
    for body in (
        {"size": size, "signatures": line},
        {"size": 10**9, "signatures": line},
        {"size": size, "signatures": "nothing"},
    ):
        answer = http.post("/log/control/cosignatures", json=body)
        assert (answer.status_code, answer.json()["reason"]) == (400, "COSIGNATURE_REFUSED")
    assert http.post("/log/nothing/cosignatures", json={"size": 1, "signatures": line}).status_code == 404
