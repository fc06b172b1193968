"""`authpipe-admin keys …`: what an operator does with keys, and what is shown meanwhile."""

from __future__ import annotations

import asyncio
import time
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from authpipe_admin.peers import CoordinatorPeer, KeyAdministrationPeer
from authpipe_sensitive import DomainError, Status

ResultT = TypeVar("ResultT")
PeerT = TypeVar("PeerT", KeyAdministrationPeer, CoordinatorPeer)
Act = Callable[[KeyAdministrationPeer], Awaitable[ResultT]]
_LOOK_SECONDS = 0.25
_STUCK_SECONDS = 30.0
_console = Console()


class StuckError(DomainError):
    """No DEK was re-wrapped for half a minute. Those that are left do not open; the audit log and keys list say more."""

    reason = "REWRAP_STUCK"
    status = Status.FAILED_PRECONDITION


# What helps, in a sentence, for each reason with which keyservice refuses.
_HELP = {
    "CALLER_NOT_ALLOWED": "This certificate is not an operator's.",
    "DEPENDENCY_UNAVAILABLE": "keyservice does not answer at the configured address. Nothing was done.",
    "KEY_NOT_FOUND": "There is no such key here. See: authpipe-admin keys list, authpipe-admin keys workspace.",
    "KEK_STATE": "The version's state does not allow this; the moves that are possible stand in docs/keys.md.",
    "KEK_IN_USE": "DEKs are still wrapped by this version. See: authpipe-admin keys list.",
    "KEK_GRACE_PERIOD": "The version was disabled too short a time ago to be destroyed.",
    "KEK_DISABLED": "The KEK version that wraps this key is disabled. Enable it: authpipe-admin keys enable.",
    "WORKSPACE_KEYS_ERASED": "The workspace's keys are destroyed or about to be.",
    "KEYS_CONTENDED": "Somebody else moved the same keys at the same time. Nothing was changed; try again.",
    "NOT_FOUND": "There is no such connection or provider configuration in this workspace.",
    "CONNECTION_DISCONNECTED": "The connection is disconnected: its key is destroyed, or about to be.",
    "LEASE_HELD": "The connection's records are being written. Nothing was changed; try: authpipe-admin keys reseal.",
    "RECORD_VERSION_CONFLICT": "A record was written at the same time. Nothing was changed; try: authpipe-admin keys reseal.",
    "AUDIT_UNAVAILABLE": "The audit log takes no events, so nothing was done. Try again when it is back.",
    "ERASURE_DELAY": "The delay is 0 to 30 days.",
    "CUSTOMER_KEY_UNAVAILABLE": "The customer's KMS refuses: the key is disabled or gone, or we have no permission.",
    "CUSTOMER_KMS_UNAVAILABLE": "The customer's KMS does not answer as it should. Nothing was changed.",
    "CUSTOMER_KEY_UNFIT": "The key does not give back what it wrapped, or opens it under a changed context.",
    "CUSTOMER_KEY_LOCATOR": "A field of the locator is missing, has another form, or names a host that is not allowed.",
    "HSM_UNAVAILABLE": "The HSM does not answer. Nothing was done; try again when it is back.",
    "DATABASE_UNAVAILABLE": "keyservice's database does not answer. Nothing was done; try again shortly.",
}

Domain = Annotated[str, typer.Option("--domain", "-d", help="The key domain: user-credentials or client-secrets.")]
Version = Annotated[int, typer.Option("--version", min=1, help="The KEK version.")]
Connection = Annotated[str, typer.Argument(help="The connection or provider configuration.", show_default=False)]
Workspace = Annotated[str, typer.Argument(help="The workspace's id, ws_….", show_default=False)]


class Services(Protocol):
    """The services that an operator reaches."""

    def keyservice(self, domain: str) -> KeyAdministrationPeer:
        """Gives the administration of a key domain."""

    def coordinator(self) -> CoordinatorPeer:
        """Gives the coordinator."""


app = typer.Typer(no_args_is_help=True, help="Keys: KEK, DEK and connection keys, their rotation and their end.")


def _run(context: typer.Context, domain: str, act: Act[ResultT]) -> ResultT:
    services: Services = context.obj
    return _call(lambda: services.keyservice(domain), act)


def _call(connect: Callable[[], PeerT], act: Callable[[PeerT], Awaitable[ResultT]]) -> ResultT:
    async def call() -> ResultT:
        peer = connect()
        try:
            return await act(peer)
        finally:
            await peer.close()

    try:
        return asyncio.run(call())
    except DomainError as error:
        details = ", ".join(f"{name} {value}" for name, value in error.metadata.items())
        said = _HELP.get(error.reason, error.sentence()) + (f" ({details})" if details else "")
        _console.print(f"[red]{error.reason}[/red]: {said}", soft_wrap=True)
        raise typer.Exit(1) from None


@app.command("list")
def list_(context: typer.Context, domain: Domain) -> None:
    """Lists the KEK versions of a key domain, and how many DEKs are on each."""
    found = _run(context, domain, lambda peer: peer.list_keks())
    table = _table("version", "state", "DEKs", "made", "primary since", "disabled", "note")
    for kek in found.versions:
        note = f"{kek.first_destroyer} asked to destroy it" if kek.first_destroyer else ""
        note = f"{len(kek.unproven)} of {found.replicas} replicas have not opened it" if kek.unproven else note
        times = [_day(each) for each in (kek.created, kek.primary_since, kek.disabled)]
        table.add_row(str(kek.version), kek.state, f"{kek.deks:,}", *times, note)
    _console.print(table)


@app.command()
def rotate(
    context: typer.Context,
    domain: Domain,
    *,
    wait: Annotated[bool, typer.Option(help="Show progress until it is done.")] = True,
) -> None:
    """Makes a new KEK version, and re-wraps every DEK with it. Requests go on meanwhile; Ctrl-C only stops looking."""
    version = _run(context, domain, lambda peer: peer.rotate_kek())
    _console.print(f"Version {version} is being made in the token.")
    if not wait:
        return
    try:
        done = _run(context, domain, lambda peer: _watch(peer, version))
    except KeyboardInterrupt:
        _console.print("It goes on. See: authpipe-admin keys list.")
        raise typer.Exit(130) from None
    _console.print(f"Version {version} is primary; {done:,} DEKs were re-wrapped with it.")


@app.command()
def disable(context: typer.Context, domain: Domain, version: Version) -> None:
    """Disables an active KEK version that no DEK is on. Undo it with: keys enable."""
    _run(context, domain, lambda peer: peer.disable_kek(version))
    _console.print(f"Version {version} is disabled.")


@app.command()
def enable(context: typer.Context, domain: Domain, version: Version) -> None:
    """Makes a disabled KEK version active again; it stays so until it is disabled by hand."""
    _run(context, domain, lambda peer: peer.enable_kek(version))
    _console.print(f"Version {version} is active.")


@app.command()
def destroy(context: typer.Context, domain: Domain, version: Version) -> None:
    """Destroys a disabled KEK version after the grace period, when a second operator asks too. There is no way back."""
    if _run(context, domain, lambda peer: peer.destroy_kek(version)):
        _console.print(f"Version {version} is destroyed: no backup of keys that it wrapped opens any more.")
    else:
        _console.print("Noted. A second operator has to ask for it too, within a day.")


@app.command()
def workspace(context: typer.Context, domain: Domain, workspace_id: Workspace) -> None:
    """Shows which keys a workspace has."""
    found = _run(context, domain, lambda peer: peer.workspace(workspace_id))
    table = _table("DEK version", "state", "on KEK version", "connection keys", "made", "customer's key")
    for dek in found.deks:
        on = str(dek.kek_version or "–")
        table.add_row(str(dek.version), dek.state, on, f"{dek.connection_keys:,}", _day(dek.created), dek.customer_key)
    _console.print(table)
    for bound in found.customer_keys:
        said = ", and its KMS refuses" if bound.withdrawn else ""
        _console.print(f"Customer's key {bound.key_id} ({bound.provider}) is {bound.state}{said}.")
    if found.erased_at:
        _console.print(f"Its keys are destroyed at {_day(found.erased_at)}.")


@app.command("rotate-dek")
def rotate_dek(context: typer.Context, domain: Domain, workspace_id: Workspace) -> None:
    """Gives a workspace a new DEK version; its connection keys are re-wrapped, and no credential is touched."""
    version = _run(context, domain, lambda peer: peer.rotate_dek(workspace_id))
    _console.print(f"DEK version {version} is primary; connection keys move to it in the background.")


@app.command("rotate-connection")
def rotate_connection(
    context: typer.Context,
    domain: Domain,
    workspace_id: Workspace,
    connection_id: Connection,
    *,
    now: Annotated[bool, typer.Option("--now", help="Seal its records again at once, as keys reseal does.")] = False,
) -> None:
    """Gives a connection a new key version, after a suspicion; its records move to it with their next write."""
    version = _run(context, domain, lambda peer: peer.rotate_key(workspace_id, connection_id))
    _console.print(f"Key version {version} seals from now on; the one before goes when no record is on it.")
    if now:
        _reseal(context, domain, workspace_id, connection_id)


@app.command()
def reseal(context: typer.Context, domain: Domain, workspace_id: Workspace, connection_id: Connection) -> None:
    """Seals the records of a connection again that are on an older key version; may be typed again."""
    _reseal(context, domain, workspace_id, connection_id)


def _reseal(context: typer.Context, domain: str, workspace_id: str, connection_id: str) -> None:
    services: Services = context.obj
    count = _call(services.coordinator, lambda peer: peer.reseal(workspace_id, connection_id, domain))
    _console.print(f"Records sealed again: {count}." if count else "Every record is on the newest key version already.")


@app.command()
def erase(
    context: typer.Context,
    domain: Domain,
    workspace_id: Workspace,
    days: Annotated[float, typer.Option(min=0, max=30, help="How long it can be cancelled.")] = 30,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Takes a workspace out of use at once, and destroys its DEKs after a delay. Cancel it with: keys cancel-erasure."""
    end = "at once, for good" if days == 0 else f"in {days:g} days, and unusable from now on"
    if not yes and not typer.confirm(f"Everything of {workspace_id} in {domain} will be erased {end}. Go on?"):
        raise typer.Exit(1)
    due, outstanding = _run(context, domain, lambda peer: peer.erase(workspace_id, days))
    _console.print(f"Nothing of it opens from now on; its keys are destroyed at {_day(due)}.")
    if outstanding:
        _console.print(f"{outstanding} replicas have not said yet that they forgot its keys; they refuse all the same.")


@app.command("cancel-erasure")
def cancel_erasure(context: typer.Context, domain: Domain, workspace_id: Workspace) -> None:
    """Cancels an erasure whose delay is not over."""
    _run(context, domain, lambda peer: peer.cancel_erasure(workspace_id))
    _console.print("Cancelled. The workspace is in use again.")


@app.command()
def bind(
    context: typer.Context,
    domain: Domain,
    workspace_id: Workspace,
    provider: Annotated[str, typer.Argument(help="aws, google, azure, transit or token.")],
    locator: Annotated[list[str], typer.Argument(help="Where the key is, as NAME=VALUE; see docs/keys.md.")],
) -> None:
    """Binds a customer's own key to a workspace, once it has proved itself; one that is bound already is replaced."""
    fields = dict(each.partition("=")[::2] for each in locator)
    key_id, name = _run(context, domain, lambda peer: peer.bind(workspace_id, provider, fields))
    _console.print(f"Bound as {key_id}: {name}. It wraps the workspace's DEKs from now on.", soft_wrap=True)


@app.command()
def unbind(context: typer.Context, domain: Domain, workspace_id: Workspace) -> None:
    """Takes a customer's key off a workspace. Its KMS has to open the DEKs one last time."""
    _run(context, domain, lambda peer: peer.unbind(workspace_id))
    _console.print("Taken off. The HSM alone wraps its DEKs, as soon as the KMS has opened them.")


@app.command()
def forget(context: typer.Context, domain: Domain, workspace_id: Workspace) -> None:
    """Has every replica forget a customer's key at once: the next use asks its KMS."""
    outstanding = _run(context, domain, lambda peer: peer.forget(workspace_id))
    _console.print(
        f"{outstanding} replicas have not said so yet." if outstanding else "Every replica has forgotten it."
    )


async def _watch(peer: KeyAdministrationPeer, version: int) -> int:
    """Shows a rotation until no DEK is left on an older version; gives how many were re-wrapped meanwhile."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console) as progress:
        task = progress.add_task("replicas that opened its canary")
        total, left, moved_at = 0, -1, time.monotonic()
        while True:
            found = await peer.list_keks()
            mine = next(each for each in found.versions if each.version == version)
            if mine.state == "prepared":
                done = found.replicas - len(mine.unproven)
                progress.update(task, total=found.replicas, completed=done)
            else:
                total = max(total, found.outstanding + mine.deks)
                progress.update(task, description="DEKs re-wrapped", total=total, completed=total - found.outstanding)
                if mine.state != "primary" or not found.outstanding:
                    return total
                if found.outstanding != left:
                    left, moved_at = found.outstanding, time.monotonic()
                elif time.monotonic() - moved_at > _STUCK_SECONDS:
                    raise StuckError
            await asyncio.sleep(_LOOK_SECONDS)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _day(moment: dt.datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "–"
