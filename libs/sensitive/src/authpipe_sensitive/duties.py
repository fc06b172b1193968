"""What an act still owes: the audit event that its rpc declares.

Whoever makes an event durable says so here; the server looks after each call whether the declared one was among them.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING_DONE = -1
_EMITTED: ContextVar[set[int] | None] = ContextVar("authpipe_emitted", default=None)


def note_emitted(event_name: int) -> None:
    """Says that an event of this name is durable, within the call that is being served."""
    emitted = _EMITTED.get()
    if emitted is not None:
        emitted.add(event_name)


def note_nothing_done() -> None:
    """Says that the call being served changed nothing and used no credential: every item of it was refused."""
    note_emitted(NOTHING_DONE)


@contextmanager
def watch_duties() -> Iterator[set[int]]:
    """Collects the names of the events that become durable inside this block."""
    emitted: set[int] = set()
    token = _EMITTED.set(emitted)
    try:
        yield emitted
    finally:
        _EMITTED.reset(token)
