"""Verifying an export: lines are measured in several processes, and put together in one, in order."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from authpipe_transparency.exports import Header
from authpipe_transparency.findings import Finding, Kind
from authpipe_transparency.measuring import Measured, measure
from authpipe_transparency.verification import Known, Section, Verification

_CHUNK_BYTES = 1 << 20
_LONGEST_LINE = 1 << 16
# A process is worth its start for what takes longer than it.
_ALONE_BYTES = 16 << 20


def headers(file: Path) -> list[Header]:
    """Gives the header of each trail in an export, without looking at what is between.

    Raises:
        Finding: FORMAT: there is none.
    """
    found: list[Header] = []
    with file.open("rb") as lines:
        for line in lines:
            if line.startswith(b'{"export":'):
                found += [each for each in measure([line.removesuffix(b"\n")]) if isinstance(each, Header)]
    if not found:
        raise Finding(Kind.FORMAT, "no line is the header of a trail")
    return found


def verify(file: Path, known: Known, progress: Callable[[int], None]) -> list[Section]:
    """Verifies an export.

    Args:
        file: The export.
        known: What is known from elsewhere.
        progress: Is told how many bytes were verified since it was told last.

    Raises:
        Finding: Something is wrong; it says what, and where.
    """
    verification = Verification(known)
    for size, measured in _measured(file):
        verification.add(measured)
        progress(size)
    return verification.end()


def _measured(file: Path) -> Iterator[tuple[int, list[Measured]]]:
    cores = os.cpu_count() or 1
    if cores == 1 or file.stat().st_size < _ALONE_BYTES:
        for chunk in _chunks(file):
            yield len(chunk), measure_chunk(chunk)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        chunks = _chunks(file)
        flying: list[tuple[int, Future[list[Measured]]]] = []
        try:
            # Two for each core are on their way: none waits, and the file is never in memory as a whole.
            for chunk in islice(chunks, 2 * cores):
                flying.append((len(chunk), pool.submit(measure_chunk, chunk)))  # noqa: PERF401  # they are on their way
            while flying:
                size, future = flying.pop(0)
                yield size, future.result()
                for chunk in islice(chunks, 1):
                    flying.append((len(chunk), pool.submit(measure_chunk, chunk)))  # noqa: PERF401
        finally:
            for _, future in flying:
                future.cancel()


def measure_chunk(chunk: bytes) -> list[Measured]:
    """Measures whole lines, each with its newline.

    Raises:
        Finding: FORMAT, CHANGED or EMITTER.
    """
    return measure(chunk.removesuffix(b"\n").split(b"\n"))


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as data:
        while chunk := data.read(_CHUNK_BYTES):
            chunk += data.readline(_LONGEST_LINE) if not chunk.endswith(b"\n") else b""
            if not chunk.endswith(b"\n"):
                raise Finding(Kind.FORMAT, "the last line is cut, or a line is longer than 64 KiB")
            yield chunk
