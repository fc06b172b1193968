"""An ASGI application of this folder as a process of its own, on Granian, TLS 1.3: what stands in for somebody else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authpipe_devstack.stack import Stack
from authpipe_testing.ports import free_ports


@contextmanager
def running(stack: Stack, folder: Path, application: str) -> Iterator[str]:
    """Runs an application, by module and name; gives its origin."""
    name = application.replace(":", "-")
    leaf = stack.public_ca.issue(folder, name, common_name=name, dns=("localhost",), addresses=("127.0.0.1",))
    (port,) = free_ports(1)
    file = folder / f"{name}.json"
    settings = {
        "application": application,
        "port": port,
        "certificate": str(leaf.certificate),
        "key": str(leaf.key),
    }
    file.write_text(json.dumps(settings))
    process = subprocess.Popen([sys.executable, str(Path(__file__)), str(file)])
    time.sleep(2)
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def main() -> None:
    """Serves."""
    from granian import Granian  # in this half alone
    from granian.constants import Interfaces

    settings = json.loads(Path(sys.argv[1]).read_text())
    Granian(
        settings["application"],
        address="127.0.0.1",
        port=settings["port"],
        interface=Interfaces.ASGI,
        ssl_cert=Path(settings["certificate"]),
        ssl_key=Path(settings["key"]),
        log_enabled=False,
        working_dir=Path(__file__).parent,
    ).serve()


if __name__ == "__main__":
    main()
