"""A witness's folder: its key, and of each log the newest tree that it has cosigned. Lose it, and the witness is retired.

witness.json   {"name": "witness.example/w1", "logs": ["<vkey>", …]}
key            Ed25519, PEM, readable by its owner alone
seen.db        SQLite: table logs(origin, size, root)
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from authpipe_transparency import WITNESS_KEY, Checkpoint, VerifierKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


class HomeError(Exception):
    """The folder is none of a witness. The message says what to do."""


class Home:
    """A witness's folder.

    Args:
        folder: Where it is.

    Raises:
        HomeError: It is none of a witness, or part of it is gone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            settings = json.loads((folder / "witness.json").read_text())
            key = load_pem_private_key((folder / "key").read_bytes(), None)
            self.logs = {key.name: key for key in map(VerifierKey.parse, settings["logs"])}
            self._name = str(settings["name"])
        except (OSError, ValueError, KeyError, TypeError):
            raise HomeError(f"{folder} is no folder of a witness. Make one: authpipe-witness init") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise HomeError(f"The key in {folder} is not an Ed25519 key.")
        if not (folder / "seen.db").exists():
            raise HomeError(
                f"What this witness has cosigned is gone from {folder}. It could cosign another past: retire it, and make"
                " one under another name."
            )
        self._key = key

    @staticmethod
    def make(folder: Path, name: str, logs: list[str]) -> Home:
        """Makes a witness.

        Raises:
            HomeError: There is something already, or the folder cannot be written.
            FormatError: A log's key is none; nothing was made.
        """
        for log in logs:
            VerifierKey.parse(log)
        if folder.exists() and any(folder.iterdir()):
            raise HomeError(f"There is something in {folder} already.")
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Beside it, and then it is there as a whole, or not.
        beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            with os.fdopen(os.open(beside / "key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
            with closing(sqlite3.connect(beside / "seen.db")) as seen, seen:
                seen.execute("create table logs (origin text primary key, size integer not null, root blob not null)")
            _write_settings(beside, name, logs)
            beside.rename(folder)
        except OSError as error:
            shutil.rmtree(beside)
            raise HomeError(f"{folder} could not be made: {error.strerror}.") from None
        return Home(folder)

    @property
    def folder(self) -> Path:
        """Gives the folder."""
        return self._folder

    def know(self, *logs: VerifierKey) -> None:
        """Lets the witness know further logs."""
        self.logs |= {log.name: log for log in logs}
        _write_settings(self._folder, self._name, [str(log) for log in self.logs.values()])

    @property
    def key(self) -> VerifierKey:
        """Gives the witness's verifier key."""
        return VerifierKey(self._name, WITNESS_KEY, self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Signs."""
        return self._key.sign(message)

    def replace(self, checkpoint: Checkpoint, judge: Callable[[Checkpoint | None], None]) -> None:
        """Remembers a checkpoint as the newest of its log, durable on return.

        Reading, judging and replacing are one step, also for two processes at once.

        Args:
            checkpoint: The one that is about to be cosigned.
            judge: Is given the one before, and raises when this one may not follow it.
        """
        with self._locked() as seen:
            row = seen.execute("select size, root from logs where origin = ?", (checkpoint.origin,)).fetchone()
            judge(Checkpoint(checkpoint.origin, row[0], bytes(row[1])) if row else None)
            seen.execute(
                "insert into logs (origin, size, root) values (?, ?, ?)"
                " on conflict (origin) do update set size = excluded.size, root = excluded.root",
                (checkpoint.origin, checkpoint.size, checkpoint.root),
            )

    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._folder / "seen.db", timeout=10, isolation_level=None)) as seen:
            seen.execute("pragma synchronous = full")
            seen.execute("begin immediate")
            try:
                yield seen
            except BaseException:
                seen.execute("rollback")
                raise
            seen.execute("commit")


def _write_settings(folder: Path, name: str, logs: list[str]) -> None:
    """Writes witness.json, whole or not at all."""
    fresh = folder / "witness.json.new"
    fresh.write_text(json.dumps({"name": name, "logs": logs}, indent=1))
    fresh.replace(folder / "witness.json")
