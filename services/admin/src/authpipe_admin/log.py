"""What an operator does with the log: compares stores with it, and says for how long bodies are kept."""

from __future__ import annotations

import asyncio
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from authpipe.types.v1 import records_pb2
from authpipe_admin.peers import AuthorityPeer, LogPeer, StorePeer
from authpipe_admin.stores import Difference, compare
from authpipe_sensitive import DomainError

_TRAILS = {"vault": 1, "clientsecrets": 2}
_console, _errors = Console(), Console(stderr=True)


class Services(Protocol):
    """The services that an operator reaches."""

    def store(self, name: str) -> StorePeer:
        """Gives a store."""

    def log(self, trail: int) -> LogPeer:
        """Gives the log, of one trail."""

    def authority(self) -> AuthorityPeer:
        """Gives authority."""


workspaces = typer.Typer(no_args_is_help=True, help="What is said of a workspace.")


def verify_store(
    context: typer.Context,
    store: Annotated[str, typer.Option(help="vault or clientsecrets.")],
) -> None:
    """Compares what a store has with what the log says it has: records rolled back, changed, added or deleted are named.

    Ends with 0 when nothing differs, with 1 when something does. Verify the log itself with `authpipe audit verify`.
    """
    if store not in _TRAILS:
        _errors.print("There is no such store. It is vault or clientsecrets.")
        raise typer.Exit(2)
    services: Services = context.obj
    try:
        differences, compared = asyncio.run(_compare(services.store(store), services.log(_TRAILS[store])))
    except DomainError as error:
        _errors.print(str(error), markup=False)
        raise typer.Exit(2) from None
    for each in differences:
        word = records_pb2.RecordClass.Name(each.name.record_class).removeprefix("RECORD_CLASS_").lower()  # type: ignore[arg-type]
        where = f"{each.name.workspace} {each.name.connection} {word}"
        _console.print(f"{where} {each.what}.", markup=False, soft_wrap=True)
    _console.print(f"{compared:,} records compared, {len(differences):,} differ.")
    if differences:
        raise typer.Exit(1)


async def _compare(store: StorePeer, log: LogPeer) -> tuple[list[Difference], int]:
    compared = 0
    columns = (TextColumn("Comparing"), BarColumn(), TextColumn("{task.completed:,} records"), TimeElapsedColumn())
    with Progress(*columns, console=_errors, transient=True) as shown:
        task = shown.add_task("records", total=None)

        def progress(amount: int) -> None:
            nonlocal compared
            compared += amount
            shown.advance(task, amount)

        found = [each async for each in compare(store, log, progress)]
    return found, compared


@workspaces.command("retention")
def retention(
    context: typer.Context,
    workspace: Annotated[str, typer.Argument(help="The workspace.")],
    days: Annotated[int, typer.Option(min=1, max=36_500, help="By plan: 7 (Free), 30 (Pro), 90 (Scale).")],
) -> None:
    """Says for how many days the bodies of a workspace's audit events are kept. It is in the log itself, and audit follows it."""
    services: Services = context.obj
    try:
        asyncio.run(services.authority().set_audit_retention(workspace, days))
    except DomainError as error:
        _errors.print(str(error), markup=False)
        raise typer.Exit(2) from None
    _console.print(f"Bodies of {workspace} are kept for {days} days from now on.", markup=False)
