"""What was seen of logs before: their keys, and the newest checkpoint of each. It is what a log cannot talk itself out of.

A file of JSON, {"<origin>": {"key": "<vkey>", "size": 17, "root": "<base64>"}}, replaced as a whole.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

from authpipe_transparency import Checkpoint, FormatError, VerifierKey


@dataclass(frozen=True, slots=True)
class Log:
    """What is known of one log."""

    key: VerifierKey
    newest: Checkpoint | None


class SeenError(Exception):
    """The file of what was seen before cannot be read. The message says what to do."""


class Seen:
    """What was seen before.

    Args:
        file: Where it is kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.logs: dict[str, Log] = {}
        try:
            data = json.loads(file.read_text())
            for origin, log in data.items():
                newest = Checkpoint(origin, int(log["size"]), base64.b64decode(log["root"])) if log["size"] else None
                self.logs[origin] = Log(VerifierKey.parse(log["key"]), newest)
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError, AttributeError, OSError, FormatError):
            raise SeenError(
                f"What was seen of logs before cannot be read from {file}. Restore it from a backup; without it a log"
                " that was rewritten is not noticed. To begin anew, give another file with --seen."
            ) from None

    def remember(self, key: VerifierKey, checkpoint: Checkpoint | None) -> None:
        """Remembers a log's key, and its checkpoint where it is the newest seen."""
        known = self.logs.get(checkpoint.origin if checkpoint else key.name)
        newest = known.newest if known else None
        if checkpoint and (newest is None or checkpoint.size > newest.size):
            newest = checkpoint
        self.logs[key.name] = Log(key, newest)

    def save(self) -> None:
        """Writes it, all or nothing, durable on return."""
        data = {
            origin: {
                "key": str(log.key),
                "size": log.newest.size if log.newest else 0,
                "root": base64.b64encode(log.newest.root).decode() if log.newest else "",
            }
            for origin, log in sorted(self.logs.items())
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        with beside.open("w") as file:
            json.dump(data, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._file)
