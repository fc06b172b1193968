"""Calling a service once, and telling an operator in a sentence why it did not do it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import typer
from rich.console import Console

from authpipe_sensitive import DomainError

ResultT = TypeVar("ResultT")
_errors = Console(stderr=True)
_HELP = {
    "CALLER_NOT_ALLOWED": "This certificate is not an operator's.",
    "DEPENDENCY_UNAVAILABLE": "The service does not answer at the configured address. Nothing was done.",
    "NOT_FOUND": "There is no such workspace, member, connection, provider configuration or rotation.",
    "INCIDENT_NOT_FOUND": "There is no such incident. See: authpipe-admin incidents list --all",
    "INCIDENT_STATE": "The incident is in this state already, or further. It goes forward only.",
    "REQUEST_MALFORMED": "A name is missing or of another form. Nothing was done.",
    "MEMBER_EXISTS": "There is a member of this e-mail address. Remove them first, to invite them anew.",
    "MEMBERS_FULL": "A workspace has 500 members at most. Remove somebody first.",
    "LAST_OWNER": "A workspace keeps an owner. Make somebody else one first.",
    "DATABASE_UNAVAILABLE": "The service's database does not answer. Nothing was done; try again shortly.",
}


class Closable(Protocol):
    """A peer."""

    async def close(self) -> None:
        """Closes its connection."""


PeerT = TypeVar("PeerT", bound=Closable)


def call(connect: Callable[[], PeerT], act: Callable[[PeerT], Awaitable[ResultT]]) -> ResultT:
    """Calls a service; gives what it says.

    Raises:
        Exit: With code 2, after a sentence that helps: it refused, or is away.
    """

    async def run() -> ResultT:
        peer = connect()
        try:
            return await act(peer)
        finally:
            await peer.close()

    try:
        return asyncio.run(run())
    except DomainError as error:
        _errors.print(f"{error.reason}: {_HELP.get(error.reason, error.sentence())}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
