"""Door: what stands in a Provider's answer, taken out of it and packed to be sealed; the one room that looks inside.

packed   status (2, big-endian) ‖ Retry-After (4, big-endian) ‖ body
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from authpipe_oauth_worker.domain.answers import Answer, Said
from authpipe_sensitive import Secret

_SECRET_NAMES = frozenset(
    {"access_token", "refresh_token", "id_token", "device_code", "oauth_token", "oauth_token_secret"}
)


class Bodies:
    """Reads and packs answers."""

    def read(self, answer: Answer, secret_pointers: Iterable[str] = ()) -> Said:
        """Reads a JSON object; None: it is none, or a name stands twice in it.

        Whatever bears the name of a token is shut, at any depth, and what the last name of a pointer says.
        """
        names = _SECRET_NAMES | {pointer.rpartition("/")[2] for pointer in secret_pointers if pointer}
        try:
            data = json.loads(bytes(answer.body.expose()).decode(), object_pairs_hook=_once)
            if not isinstance(data, dict):
                return None
            return {name: _shut(name, value, names) for name, value in data.items()}
        except (ValueError, RecursionError):
            return None

    def read_form(self, answer: Answer) -> Said:
        """Reads a form (RFC 5849, section 2.1); None: it is none, or a name stands twice in it."""
        try:
            pairs = parse_qsl(bytes(answer.body.expose()).decode(), strict_parsing=True, max_num_fields=100)
            return {name: _shut(name, value, _SECRET_NAMES) for name, value in _once(pairs).items()}
        except ValueError:
            return None

    def form(self, parameters: Mapping[str, Secret | str], *, as_json: bool) -> Secret:
        """Writes parameters as JSON or as a form."""
        plain = {n: v.expose().decode() if isinstance(v, Secret) else v for n, v in parameters.items()}
        return Secret((json.dumps(plain) if as_json else urlencode(plain)).encode())

    def bearer(self, token: Secret) -> Secret:
        """Gives the value of a Bearer header (RFC 6750, section 2.1)."""
        return Secret(b"Bearer " + bytes(token.expose()))

    def basic(self, name: str, secret: Secret | None) -> Secret:
        """Gives the value of an HTTP Basic header (RFC 7617)."""
        password = bytes(secret.expose()) if secret is not None else b""
        return Secret(b"Basic " + b64encode(name.encode() + b":" + password))

    def pack(self, answer: Answer) -> Secret:
        """Packs an answer, to be sealed before anybody judges it."""
        head = answer.status.to_bytes(2, "big") + answer.retry_after_seconds.to_bytes(4, "big")
        return Secret.adopt(bytearray(head) + answer.body.expose())

    def unpack(self, packed: Secret) -> Answer:
        """Unpacks an answer that was sealed."""
        data = packed.expose()
        return Answer(int.from_bytes(data[:2], "big"), Secret(data[6:]), int.from_bytes(data[2:6], "big"))


def _shut(name: str, value: object, names: frozenset[str]) -> object:
    match value:
        case str():
            return Secret(value.encode()) if name in names else value
        case dict():
            return {inner: _shut(inner, each, names) for inner, each in value.items()}
        case list():
            return [_shut(name, each, names) for each in value]
        case _:
            return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("A name stands twice.")
    return data
