"""What the rules need from outside, as Protocols: the way out, what is in answers, the spool, coordinator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from authpipe_oauth_worker.domain.answers import Answer, Said
from authpipe_sensitive import Secret


class Kept(NamedTuple):
    """An answer on this worker's disk.

    Args:
        name: What the spool calls it.
        packed: The sealed record, as it was packed.
    """

    name: str
    packed: bytes


class Sender(Protocol):
    """The way out."""

    async def post_form(
        self, url: str, form: Mapping[str, Secret | str], client_id: str, client_secret: Secret | None, method: str
    ) -> Answer:
        """Sends a form once."""


class Bodies(Protocol):
    """Looks inside answers."""

    def read(self, answer: Answer) -> Said:
        """Reads what an answer says; None: nothing that can be read."""

    def pack(self, answer: Answer) -> Secret:
        """Packs an answer, to be sealed before anybody judges it."""

    def unpack(self, packed: Secret) -> Answer:
        """Unpacks an answer that was sealed."""


class Slot(Protocol):
    """Place for one sealed answer on this worker's disk."""

    def write(self, packed: bytes) -> None:
        """Writes the answer. From here on it outlives this process."""

    async def keep(self) -> None:
        """Makes the answer durable, to be delivered later."""

    def release(self) -> None:
        """Gives the place back."""


class Spool(Protocol):
    """Sealed answers on this worker's disk."""

    def reserve(self) -> Slot:
        """Makes place for one answer.

        Raises:
            SpoolError: The disk takes no file, or too much waits.
        """

    def waiting(self) -> list[Kept]:
        """Gives the answers that are to be delivered, oldest first."""

    def remove(self, name: str) -> None:
        """Forgets an answer that was delivered, or that nobody waits for."""


class Coordinator(Protocol):
    """coordinator, in our own words."""

    async def claim_answer(self, workspace: str, connection: str, fence: int, request_id: str) -> str:
        """Gives the grant to store an answer."""

    async def report_answer(self, workspace: str, connection: str, fence: int, request_id: str) -> None:
        """Says that an answer is stored."""
