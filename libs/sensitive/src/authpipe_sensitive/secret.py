"""`Secret`: bytes that cannot be printed, formatted, pickled, hashed or compared in variable time.

The buffer is a `bytearray` that is overwritten by `destroy()`. Python copies freely once `expose()` has been called
(FACTS: 500 tokens held as `str` all stayed readable in memory; a `bytearray` that was overwritten did not), so
`expose()` stands only at doors, as late as possible.
"""

from __future__ import annotations

import hmac
import re
from typing import NoReturn, Self


class Secret:
    """A secret value of any length, in bytes.

    Args:
        value: The bytes. They are copied; a `bytearray` handed in stays the caller's to overwrite.
    """

    __slots__ = ("_buffer",)
    __hash__ = None  # type: ignore[assignment]  # a hash of a secret in a dict is a secret in a dict

    def __init__(self, value: bytes | bytearray | memoryview) -> None:
        self._buffer = bytearray(value)

    @classmethod
    def adopt(cls, buffer: bytearray) -> Self:
        """Takes over a buffer without copying it: it is overwritten when the secret is destroyed."""
        secret = cls.__new__(cls)
        secret._buffer = buffer  # noqa: SLF001  # its own class
        return secret

    def expose(self) -> bytearray:
        """Hands out the value itself, not a copy. Only at a door, never in a rule."""
        return self._buffer

    def matches(self, shape: re.Pattern[bytes]) -> bool:
        """Says whether the whole value has a shape: its alphabet and length. Takes variable time; not for comparing."""
        return shape.fullmatch(self._buffer) is not None

    def hmac_sha256(self, message: bytes | Secret) -> bytes:
        """Gives HMAC-SHA256 (RFC 2104) of a message with this secret as the key, 32 bytes."""
        return hmac.digest(self._buffer, message.expose() if isinstance(message, Secret) else message, "sha256")

    def copy(self) -> Self:
        """Gives a copy with a life of its own."""
        return type(self)(self._buffer)

    def destroy(self) -> None:
        """Overwrites the value with zeros and empties it. May be called twice."""
        self._buffer[:] = bytes(len(self._buffer))
        self._buffer.clear()

    def __len__(self) -> int:
        return len(self._buffer)

    def __bool__(self) -> bool:
        return bool(self._buffer)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._buffer, other._buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def __repr__(self) -> str:
        return "Secret(redacted)"

    def __str__(self) -> NoReturn:
        raise TypeError("A Secret has no text form.")

    def __format__(self, format_spec: str) -> NoReturn:
        raise TypeError("A Secret cannot be formatted.")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A Secret cannot be pickled or copied.")

    def __bytes__(self) -> NoReturn:
        raise TypeError("A Secret is read by expose(), at a door.")

    def __iter__(self) -> NoReturn:
        raise TypeError("A Secret cannot be iterated.")
