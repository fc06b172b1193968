"""`DomainError`: the one base of every error that may cross a process boundary.

An error is a class with a stable reason, a status and one sentence (its docstring). It takes no text: nothing that came
in can be echoed out. Metadata are Labels and whole numbers.
"""

from __future__ import annotations

import enum
import inspect
from typing import ClassVar

from authpipe_sensitive.labels import Label


class Status(enum.IntEnum):
    """gRPC status codes, by their numbers, for rules that may not import grpc."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class DomainError(Exception):
    """The request was not carried out."""

    reason: ClassVar[str] = "REFUSED"
    status: ClassVar[Status] = Status.FAILED_PRECONDITION

    def __init__(self, **metadata: Label | int) -> None:
        super().__init__(self.reason)
        self.metadata = metadata

    @classmethod
    def sentence(cls) -> str:
        """The sentence that is shown: what is wrong and what helps."""
        return " ".join(inspect.cleandoc(cls.__doc__ or DomainError.__doc__ or "").split())

    def __str__(self) -> str:
        return f"{self.reason}: {self.sentence()}"
