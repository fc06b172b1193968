"""Opening several records at once: all that have to be there, or none is left in memory."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from authpipe_consumer.words import Consumer, Opened, Want
from authpipe_envelope import RecordClass
from authpipe_sensitive import DomainError

_NOT_THERE = "RECORD_NOT_FOUND"


async def open_together(
    vault: Consumer, wants: Sequence[Want], optional: Container[RecordClass | None], require: Callable[[Opened], None]
) -> list[Opened | None]:
    """Opens records.

    Args:
        vault: The consumer of their store.
        wants: Which.
        optional: The classes of which there may be no record.
        require: Returns when a record is bound to what it has to be bound to.

    Returns:
        The records, in order; None: there is none, which may be.

    Raises:
        DomainError: One of them is missing, does not open now, or is bound to something else; none is left in memory.
    """
    answers = await vault.open(wants)
    found: list[Opened | None] = []
    try:
        for want, answer in zip(wants, answers, strict=True):
            if isinstance(answer, Opened):
                require(answer)
                found.append(answer)
            elif answer.reason == _NOT_THERE and want.record_class in optional:
                found.append(None)
            else:
                raise answer
    except DomainError:
        for answer in answers:
            if isinstance(answer, Opened):
                answer.plaintext.destroy()
        raise
    return found
