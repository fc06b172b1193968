"""Verifying an export: lines are measured in several processes, and put together in one, in order."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from authpipe_transparency.exports import Header
from authpipe_transparency.findings import Finding, Kind
from authpipe_transparency.measuring import Measured, measure
from authpipe_transparency.verification import Known, Section, Verification

# Batches that lie across two pieces are compared in the one process that puts all together: larger pieces have fewer of them.
_PIECE_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 17
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
    pieces = _pieces(file)
    cores = os.cpu_count() or 1
    if cores == 1 or file.stat().st_size < _ALONE_BYTES:
        for start, end in pieces:
            yield end - start, measure_piece(file, start, end)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        flying: list[tuple[int, Future[list[Measured]]]] = []
        try:
            # Two for each core are on their way: none waits, and the file is never in memory as a whole.
            for start, end in islice(pieces, 2 * cores):
                flying.append((end - start, pool.submit(measure_piece, file, start, end)))  # they are on their way
            while flying:
                size, future = flying.pop(0)
                yield size, future.result()
                for start, end in islice(pieces, 1):
                    flying.append((end - start, pool.submit(measure_piece, file, start, end)))
        finally:
            # Not future by future: a pool that is left with some of them cancelled may wait for ever for what never comes.
            pool.shutdown(cancel_futures=True)


def measure_piece(file: Path, start: int, end: int) -> list[Measured]:
    """Measures the whole lines between two places of a file. It reads them itself: that costs less than a copy from process to process.

    Raises:
        Finding: FORMAT, CHANGED or EMITTER.
    """
    with file.open("rb", buffering=_BUFFER_BYTES) as data:
        data.seek(start)
        return measure(_lines(data, end - start))


def _lines(data: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        line = data.readline(_LONGEST_LINE)
        size -= len(line)
        if not line.endswith(b"\n"):
            raise _cut()
        yield line[:-1]
    if size:
        raise Finding(Kind.FORMAT, "the file has changed while it was read")


def _pieces(file: Path) -> Iterator[tuple[int, int]]:
    """Cuts a file at ends of lines."""
    size, start = file.stat().st_size, 0
    with file.open("rb") as data:
        while start < size:
            data.seek(min(start + _PIECE_BYTES, size) - 1)
            if not data.readline(_LONGEST_LINE).endswith(b"\n"):
                raise _cut()
            yield start, data.tell()
            start = data.tell()


def _cut() -> Finding:
    return Finding(Kind.FORMAT, "the last line is cut, or a line is longer than 64 KiB")
