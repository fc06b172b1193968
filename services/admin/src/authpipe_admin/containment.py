"""`authpipe-admin contain …`: what takes access away in one act. Each can be tried dry, and asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from authpipe_admin.peers import AuthorityPeer, ContainmentPeer, Rotation
from authpipe_admin.calling import call

_LOOK_SECONDS = 0.5
_console, _errors = Console(), Console(stderr=True)

app = typer.Typer(no_args_is_help=True, help="Takes access away in one act: for the day on which something is stolen.")
Workspace = Annotated[str, typer.Argument(help="The workspace: ws_…")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")]


class Services(Protocol):
    """The services that an operator reaches."""

    def containment(self) -> ContainmentPeer:
        """Gives rotations of tokens."""

    def authority(self) -> AuthorityPeer:
        """Gives authority."""


@app.command("rotate")
def rotate(
    context: typer.Context,
    workspace: Annotated[str, typer.Option(help="Every token of this workspace.")] = "",
    connection: Annotated[str, typer.Option(help="Only of this connection of the workspace.")] = "",
    provider_config: Annotated[str, typer.Option(help="Only of this provider configuration of the workspace.")] = "",
    *,
    everything: Annotated[bool, typer.Option("--everything", help="Every token of every workspace.")] = False,
    dry_run: DryRun = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for it; see: contain rotation.")] = False,
) -> None:
    """Rotates tokens: each is refreshed at its Provider once. It goes on when you stop watching, or a part of us dies.

    Ends with 0 when all were rotated, with 1 when some could not be; each of those has its REFRESH_FAILED in the log.
    """
    if (
        everything == bool(workspace)
        or (connection and provider_config)
        or (everything and (connection or provider_config))
    ):
        _errors.print(
            "Say whose tokens: --workspace, with or without --connection or --provider-config; or --everything."
        )
        raise typer.Exit(2)
    services = _services(context)
    begun = call(services.containment, lambda peer: peer.begin(workspace, connection, provider_config, dry_run=dry_run))
    if begun.irreplaceable:
        _print(
            f"{begun.irreplaceable:,} credentials only their owners can replace: API keys, or tokens without a refresh token."
        )
    if dry_run:
        _print(f"{begun.total:,} tokens would be rotated. Nothing was done.")
        return
    _print(f"Rotation {begun.id} of {begun.total:,} tokens has begun.")
    if not detach:
        _watch(services, begun)


@app.command("rotation")
def rotation(context: typer.Context, rotation_id: Annotated[str, typer.Argument(help="rot_…")]) -> None:
    """Shows how far a rotation is, until it has ended. Ends as `rotate` does."""
    services = _services(context)
    _watch(services, call(services.containment, lambda peer: peer.get(rotation_id)))


@app.command("revoke-keys")
def revoke_keys(context: typer.Context, workspace: Workspace, *, dry_run: DryRun = False) -> None:
    """Revokes all API keys of a workspace, at once."""
    count = call(_services(context).authority, lambda peer: peer.revoke_api_keys(workspace, dry_run=dry_run))
    _print(f"{count:,} API keys would be revoked. Nothing was done." if dry_run else f"{count:,} API keys are revoked.")


@app.command("freeze")
def freeze(context: typer.Context, workspace: Workspace, *, dry_run: DryRun = False) -> None:
    """Freezes a workspace: nothing of it is served or changed. Its tokens are kept alive, so that nothing is lost."""
    was_frozen = call(_services(context).authority, lambda peer: peer.freeze(workspace, dry_run=dry_run))
    if was_frozen:
        _print("It was frozen already.")
    else:
        _print("It would be frozen. Nothing was done." if dry_run else "It is frozen, within seconds everywhere.")


@app.command("unfreeze")
def unfreeze(context: typer.Context, workspace: Workspace) -> None:
    """Has a workspace served again. No API key can do that: it may be the one that was stolen."""
    was_frozen = call(_services(context).authority, lambda peer: peer.unfreeze(workspace))
    _print("It is served again." if was_frozen else "It was not frozen. Nothing was done.")


def _watch(services: Services, found: Rotation) -> None:
    columns = (TextColumn("Rotating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_errors, transient=True) as shown:
        task = shown.add_task("tokens", total=found.total)
        try:
            found = call(
                services.containment,
                lambda peer: _until_ended(peer, found, lambda done: shown.update(task, completed=done)),
            )
        except KeyboardInterrupt:
            shown.stop()
            _print(f"It goes on. See: authpipe-admin contain rotation {found.id}")
            return
    _print(f"{found.rotated:,} tokens are rotated, {found.failed:,} could not be.")
    if found.failed:
        raise typer.Exit(1)


async def _until_ended(peer: ContainmentPeer, found: Rotation, show: Callable[[int], object]) -> Rotation:
    while not found.ended:
        await asyncio.sleep(_LOOK_SECONDS)
        found = await peer.get(found.id)
        show(found.rotated + found.failed)
    return found


def _services(context: typer.Context) -> Services:
    services: Services = context.obj
    return services


def _print(sentence: str) -> None:
    _console.print(sentence, markup=False, highlight=False, soft_wrap=True)
