"""grpc knows what we set in its environment: a version that does not would say so on every start, and work as it likes."""

from __future__ import annotations

import os
import subprocess
import sys

_START = "import authpipe_rpc, grpc; grpc.insecure_channel('127.0.0.1:1').close()"


def _said(**environment: str) -> str:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    command = [sys.executable, "-c", _START]
    done = subprocess.run(command, env=outer | environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stderr


def test_grpc_knows_the_experiments_that_are_turned_off_and_says_nothing_of_itself() -> None:
    assert _said() == ""


def test_one_that_it_does_not_know_it_tells_of() -> None:
    assert "Unknown experiment: no_such" in _said(GRPC_EXPERIMENTS="-no_such")
