"""What can be wrong with a log, or with an export of it: the exit code, and the sentence that says so."""

from __future__ import annotations

import enum


class Kind(enum.IntEnum):
    """What is wrong with a log, as the exit code that says so."""

    FORMAT = 3
    SIGNATURE = 4
    CHANGED = 5
    TREE = 6
    FORKED = 7
    OMITTED = 8
    MISSING = 9
    WITNESSES = 10
    EMITTER = 11


_SENTENCES = {
    Kind.FORMAT: "This is not a whole export, or it was cut or edited",
    Kind.SIGNATURE: "A checkpoint is not signed by the log's key",
    Kind.CHANGED: "An event is not the one that was logged",
    Kind.TREE: "Events were changed, removed, inserted or moved in the tree",
    Kind.FORKED: "The log contradicts a checkpoint that was seen before: it was rewritten or set back, or this export is an old one",
    Kind.OMITTED: "The workspace's chain is not as the log itself stated it: events are left out",
    Kind.MISSING: "The body of an event is gone, and no retention that was logged explains it",
    Kind.WITNESSES: "Fewer witnesses than asked for have cosigned the checkpoint",
    Kind.EMITTER: "An event is not signed by the process that it says it comes from: the log has invented or changed it",
}


class Finding(Exception):
    """A log, or an export of it, is not as it must be.

    Args:
        kind: What is wrong.
        place: Where, in words.
    """

    def __init__(self, kind: Kind, place: str) -> None:
        super().__init__(f"{_SENTENCES[kind]} ({place}).")
        self.kind = kind
        self._place = place

    def __reduce__(self) -> tuple[type[Finding], tuple[Kind, str]]:
        """Gives what it is made anew of in another process: exports are read in several."""
        return Finding, (self.kind, self._place)
