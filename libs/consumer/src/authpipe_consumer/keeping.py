"""Records that were opened a moment ago, kept sealed beside their keys, for as long as keyservice said.

Having one allows nothing: its store is asked before it is opened again, and puts the use on record.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import NamedTuple

from authpipe.types.v1 import records_pb2 as pb
from authpipe_grants import ReleasedKey

# About 4 KiB each.
_MOST = 4096


class Name(NamedTuple):
    """What a record is asked for by; class 0: the one of its connection that may be served."""

    workspace: str
    connection: str
    record_class: int


class KeptRecord(NamedTuple):
    """A record as its store gave it, and its key.

    Args:
        record: The record.
        digest: SHA-256 of its ciphertext.
        key: Its key, which ends with its time.
        ends: What ends it then.
    """

    record: pb.SealedRecord
    digest: bytes
    key: ReleasedKey
    ends: asyncio.TimerHandle


class Kept:
    """Keeps records with their keys. What is over is destroyed when it is over, not when somebody looks.

    Args:
        most: How many at most; the one that was kept first goes first.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._records: OrderedDict[Name, KeptRecord] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, name: Name) -> KeptRecord | None:
        """Gives what is kept under a name; None: nothing."""
        return self._records.get(name)

    def keep(self, name: Name, record: pb.SealedRecord, key: ReleasedKey) -> None:
        """Keeps a record with its key, which belongs to this from now on, in place of what was kept under the name."""
        self.forget(name)
        ends = asyncio.get_running_loop().call_later(key.keep_seconds, self.forget, name)
        self._records[name] = KeptRecord(record, hashlib.sha256(record.record).digest(), key, ends)
        while len(self._records) > self._most:
            self.forget(next(iter(self._records)))

    def forget(self, name: Name) -> None:
        """Destroys what is kept under a name."""
        kept = self._records.pop(name, None)
        if kept is not None:
            kept.ends.cancel()
            kept.key.material.destroy()
