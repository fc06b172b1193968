"""What is measured by: wrk, PostgreSQL's own speed, the CPU and the memory that each part uses."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from authpipe_devstack.layout import PROCESSES
from authpipe_devstack.stack import Stack
from psycopg_pool import AsyncConnectionPool

SECONDS = 8


@dataclass
class Load:
    """What wrk saw."""

    rate: float
    p50_ms: float
    p99_ms: float
    requests: int
    errors: int

    def with_another(self, other: Load) -> Load:
        """Gives the mean of two runs."""
        return Load(
            (self.rate + other.rate) / 2,
            (self.p50_ms + other.p50_ms) / 2,
            (self.p99_ms + other.p99_ms) / 2,
            self.requests + other.requests,
            self.errors + other.errors,
        )


def wrk(url: str, connections: int, script: Path) -> Load:
    """Puts a closed loop of requests on a URL."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency"]
    out = subprocess.run([*command, "-s", str(script), url], capture_output=True, text=True, check=True).stdout
    errors = sum(int(found) for found in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    errors += sum(map(int, socket_errors.groups())) if socket_errors else 0
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    total = re.search(r"(\d+) requests in", out)
    assert found and total
    return Load(float(found[1]), _ms(out, "50%"), _ms(out, "99%"), int(total[1]), errors)


def _ms(out: str, percentile: str) -> float:
    found = re.search(rf"\s{percentile}\s+([\d.]+)(us|ms|s)", out)
    assert found
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]


async def point_selects(conninfo: dict[str, Any]) -> float:
    """Measures PostgreSQL point selects over mutual TLS, 8 connections, prepared."""
    async with AsyncConnectionPool(
        kwargs={**conninfo, "autocommit": True, "prepare_threshold": 1}, min_size=8, max_size=8, open=False
    ) as pool:
        await pool.wait()
        count = 0
        ends = time.monotonic() + 3

        async def work() -> None:
            nonlocal count
            async with pool.connection() as connection:
                while time.monotonic() < ends:
                    await (await connection.execute("select 1 where %s = 1", (1,))).fetchall()
                    count += 1

        await asyncio.gather(*(work() for _ in range(8)))
    return count / 3


def processes(stack: Stack) -> dict[str, list[psutil.Process]]:
    """Gives the processes of the system, PostgreSQL's with their children."""
    found = {process.name: [psutil.Process(stack.pid(process.name))] for process in PROCESSES}
    for name, cluster in stack.clusters.items():
        server = psutil.Process(cluster.pid())
        found[f"postgres-{name}"] = [server, *server.children(recursive=True)]
    return found


def cpu(found: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """Gives the CPU seconds that each part has used."""
    return {
        name: sum(sum(each.cpu_times()[:2]) for each in parts if each.is_running()) for name, parts in found.items()
    }


def memory_mib(found: dict[str, list[psutil.Process]]) -> float:
    """Gives the memory of the system, shared pages counted once where the kernel says (PSS), else RSS."""
    total = 0
    for parts in found.values():
        for each in parts:
            try:
                total += each.memory_full_info().pss
            except (psutil.AccessDenied, AttributeError):
                total += each.memory_info().rss
    return total / 2**20
