"""Door: answers that vault could not take, on this worker's disk: sealed already, written before anybody waits for vault.

    <random>.part            reserved; after the answer came: the answer. What is given back is emptied, and reserved again
    <when>-<random>.record   an answer that is to be delivered, durable

    file   "APS1" ‖ SHA-256 of what follows ‖ a sealed record

That a place can be had means that the disk takes a byte in it. A process that dies leaves what the kernel has; a machine that
loses power leaves what was synchronised, which is everything that was said to be kept. A file that was written half way is none.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from authpipe_oauth_worker.domain.ports import Kept
from authpipe_oauth_worker.errors import SpoolError
from authpipe_sensitive import get_log

_MAGIC = b"APS1"
_HEAD = len(_MAGIC) + 32
_LARGEST = 4 * 1024 * 1024
# So many files that are not needed just now are kept: making and removing one costs more than all else that is done with it.
_MOST_AT_REST = 256
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Spool:
    """A folder of sealed answers.

    Args:
        folder: Where it is; made when it is missing, for this user alone.
        most: How many may wait; more, and no token is sent.
    """

    def __init__(self, folder: Path, most: int = 10_000) -> None:
        self._folder = folder
        self._most = most
        self._count = 0
        self._at_rest: list[Slot] = []

    def open(self) -> None:
        """Makes the folder, and finds what a process before this one has left.

        Raises:
            SpoolError: It cannot be used.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in self._folder.glob("*.part"):
                # Written by a process that died before it knew whether vault had it: delivering it again is harmless.
                if _read(part) is None:
                    part.unlink()
                else:
                    _synchronise(part)
                    part.rename(self.record())
            _synchronise(self._folder)
            self._count = len(list(self._folder.glob("*.record")))
        except OSError as error:
            raise SpoolError(errno=error.errno or 0) from None

    def reserve(self) -> Slot:
        """Makes place for one answer.

        Raises:
            SpoolError: The disk takes no file, or too much waits.
        """
        if self._count >= self._most:
            raise SpoolError(waiting=self._count)
        path = self._folder / f"{secrets.token_hex(8)}.part"
        try:
            slot = self._rested() or Slot(self, path, os.open(path, _FILE, 0o600))
        except OSError as error:
            raise SpoolError(errno=error.errno or 0) from None
        slot.try_disk()
        return slot

    def _rested(self) -> Slot | None:
        while self._at_rest:
            slot = self._at_rest.pop()
            if slot.is_there():
                return slot
        return None

    def take_back(self, slot: Slot) -> bool:
        """Keeps a place that was emptied, to be reserved again; False: there are enough."""
        if len(self._at_rest) >= _MOST_AT_REST:
            return False
        self._at_rest.append(slot)
        return True

    def record(self) -> Path:
        """Makes a name for an answer that is to be delivered: it sorts after all that there are."""
        return self._folder / f"{time.time_ns():020}-{secrets.token_hex(4)}.record"

    def waiting(self) -> list[Kept]:
        """Gives the answers that are to be delivered, oldest first.

        Raises:
            SpoolError: The disk does not answer.
        """
        kept = []
        try:
            for path in sorted(self._folder.glob("*.record")):
                data = _read(path)
                if data is None:
                    # It was whole when it was kept: the disk has changed it. It is left for whoever looks after the disk.
                    path.rename(path.with_suffix(".broken"))
                    continue
                kept.append(Kept(path.name, data))
        except OSError as error:
            raise SpoolError(errno=error.errno or 0) from None
        return kept

    def remove(self, name: str) -> None:
        """Forgets an answer that was delivered, or that nobody waits for."""
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise SpoolError(errno=error.errno or 0) from None
        self.note(-1)

    def note(self, change: int) -> None:
        """Counts."""
        self._count = max(0, self._count + change)


class Slot:
    """Place for one answer.

    Args:
        spool: The spool.
        path: The file.
        descriptor: The file, open.
    """

    def __init__(self, spool: Spool, path: Path, descriptor: int) -> None:
        self._spool = spool
        self._path = path
        self._descriptor = descriptor

    def is_there(self) -> bool:
        """Says whether the file still has its name; one that has not, as the folder was removed, is given up."""
        if os.fstat(self._descriptor).st_nlink:
            return True
        self._give_up()
        return False

    def try_disk(self) -> None:
        """Returns when the disk takes a byte.

        Raises:
            SpoolError: It does not. The place is given up.
        """
        try:
            os.pwrite(self._descriptor, b"\0", 0)
        except OSError as error:
            self._give_up()
            raise SpoolError(errno=error.errno or 0) from None

    def write(self, packed: bytes) -> None:
        """Writes the answer. From here on it outlives this process.

        Raises:
            SpoolError: The disk does not take it.
        """
        data, at = memoryview(_MAGIC + hashlib.sha256(packed).digest() + packed), 0
        try:
            while at < len(data):
                at += os.pwrite(self._descriptor, data[at:], at)
        except OSError as error:
            raise SpoolError(errno=error.errno or 0) from None

    async def keep(self) -> None:
        """Makes the answer durable, to be delivered later. From here on it outlives this machine's power.

        Raises:
            SpoolError: The disk does not take it.
        """
        try:
            await asyncio.to_thread(self._keep)
        except OSError as error:
            raise SpoolError(errno=error.errno or 0) from None
        self._spool.note(1)

    def release(self) -> None:
        """Gives the place back: the answer is in vault, or there was none."""
        try:
            os.ftruncate(self._descriptor, 0)
            if self._spool.take_back(self):
                return
        except OSError as error:
            get_log().warning("a place on the disk could not be emptied", errno=error.errno or 0)
        self._give_up()

    def _give_up(self) -> None:
        os.close(self._descriptor)
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _keep(self) -> None:
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._path.rename(self._spool.record())
        _synchronise(self._path.parent)


def _read(path: Path) -> bytes | None:
    """Gives the sealed record in a file; None: it was not written to its end, or changed."""
    with path.open("rb") as file:
        data = file.read(_LARGEST)
    good = data[:4] == _MAGIC and hmac.compare_digest(hashlib.sha256(data[_HEAD:]).digest(), data[4:_HEAD])
    return data[_HEAD:] if good else None


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
