"""What the proxy adds: the same request direct to an API and through the proxy, and a large body with the memory it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import serving
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

SIZE = 1024**3
_PIECE = bytes(65_536)


async def api(scope: dict[str, Any], _: Any, send: Any) -> None:
    """Answers 200 bytes, or at /api/big a gibibyte."""
    if scope["type"] != "http":
        return
    big = scope["path"].endswith("/big")
    length = SIZE if big else 200
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if not big:
        await send({"type": "http.response.body", "body": bytes(200)})
        return
    for _ in range(SIZE // len(_PIECE)):
        await send({"type": "http.response.body", "body": _PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextmanager
def running_api(stack: Stack, folder: Path) -> Iterator[str]:
    """Runs the API; gives its URL."""
    with serving.running(stack, folder, "proxy:api") as origin:
        yield f"{origin}/api"


def connect(customer: Customer, url: str) -> str:
    """Describes the API and imports an API key for it; gives the connection."""
    document = {
        "name": "bench-api",
        "display_name": "Bench",
        "documentation": ["https://example.com"],
        "api_key": {"in": "header", "name": "X-Api-Key"},
        "api": {"base_urls": [url]},
    }
    customer.post("/providers", document).raise_for_status()
    body = {
        "kind": "api_key",
        "end_user_id": "bench",
        "provider": "bench-api",
        "api_key": "key-of-the-bench-0123456789",
    }
    return str(customer.post("/connections", body).raise_for_status().json()["id"])


def script(folder: Path, key: str, path: str) -> Path:
    """Writes what wrk does."""
    file = folder / f"{path.strip('/').replace('/', '-')}.lua"
    file.touch(0o600)
    file.write_text(
        f'wrk.headers["Authorization"] = "Bearer {key}"\nrequest = function() return wrk.format("GET", "{path}") end\n'
    )
    return file


def large_body(stack: Stack, customer: Customer, connection: str, url: str) -> tuple[float, float, float]:
    """Streams a gibibyte direct and through; gives MiB/s of both, and the MiB that edge and worker grew by at most."""
    parts = [psutil.Process(stack.pid(name)) for name in ("edge", "worker")]
    before = sum(each.memory_info().rss for each in parts)
    most, ended = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, sum(each.memory_info().rss for each in parts))

    watching = threading.Thread(target=watch)
    direct = _stream(customer.http, f"{url}/big")
    watching.start()
    try:
        through = _stream(customer.http, f"/v1/proxy/{connection}/big")
    finally:
        ended.set()
        watching.join()
    return direct, through, (most - before) / 2**20


def _stream(http: httpx2.Client, url: str) -> float:
    began, length = time.monotonic(), 0
    with http.stream("GET", url) as answer:
        for piece in answer.iter_raw():
            length += len(piece)
    if length != SIZE:
        raise SystemExit(f"{length} of {SIZE} bytes came: nothing was measured.")
    return SIZE / 2**20 / (time.monotonic() - began)
