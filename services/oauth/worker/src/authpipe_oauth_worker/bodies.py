"""Door: what stands in a Provider's answer, taken out of it and packed to be sealed; the one room that looks inside.

packed   status (2, big-endian) ‖ Retry-After (4, big-endian) ‖ body
"""

from __future__ import annotations

import json
from typing import Any

from authpipe_oauth_worker.domain.answers import Answer, Said
from authpipe_sensitive import Secret

_SECRET_NAMES = frozenset({"access_token", "refresh_token", "id_token"})


class Bodies:
    """Reads and packs answers."""

    def read(self, answer: Answer) -> Said:
        """Reads a JSON object; None: it is none, or a name stands twice in it."""
        try:
            data = json.loads(bytes(answer.body.expose()).decode(), object_pairs_hook=_once)
            if not isinstance(data, dict):
                return None
            return {name: _shut(name, value) for name, value in data.items()}
        except (ValueError, RecursionError):
            return None

    def pack(self, answer: Answer) -> Secret:
        """Packs an answer, to be sealed before anybody judges it."""
        head = answer.status.to_bytes(2, "big") + answer.retry_after_seconds.to_bytes(4, "big")
        return Secret.adopt(bytearray(head) + answer.body.expose())

    def unpack(self, packed: Secret) -> Answer:
        """Unpacks an answer that was sealed."""
        data = packed.expose()
        return Answer(int.from_bytes(data[:2], "big"), Secret(data[6:]), int.from_bytes(data[2:6], "big"))


def _shut(name: str, value: object) -> object:
    return Secret(value.encode()) if name in _SECRET_NAMES and isinstance(value, str) else value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("A name stands twice.")
    return data
