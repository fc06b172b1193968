"""`Label`: the only text that may enter a log, a span or an error: an id or a word of a closed list.

A token could be an id by its alphabet, so a Label is made on purpose, at a place that knows what it holds; what is not
a Label is refused by type (`RedactedError`), not cut out of finished text.
"""

from __future__ import annotations

import re

_SHAPE = re.compile(r"[A-Za-z0-9_.:/@ -]{0,160}")


class RedactedError(TypeError):
    """Something was to be shown that is not known to be harmless. Its value is not in this message."""


class Label(str):
    """An id, a name of a process, an address: letters, digits and ``_ . : / @ -``, at most 160 of them.

    Raises:
        RedactedError: The text has another shape. The text is not repeated.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Label:  # noqa: PYI034  # Self would lose the class of str
        if _SHAPE.fullmatch(text) is None:
            raise RedactedError("A Label holds up to 160 letters, digits and _ . : / @ - and nothing else.")
        return super().__new__(cls, text)
