"""`authpipe-admin members …`: who may sign in to a workspace's dashboard. The first owner is invited here."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.table import Table

from authpipe_admin.calling import call
from authpipe_admin.peers import MembersPeer

_console = Console()

app = typer.Typer(no_args_is_help=True, help="Says who may sign in to a workspace's dashboard.")
Workspace = Annotated[str, typer.Argument(help="The workspace: ws_…")]
MemberId = Annotated[str, typer.Argument(help="The member: mem_…")]


class Role(StrEnum):
    """From the least to the most."""

    AUDITOR = "auditor"
    DEVELOPER = "developer"
    ADMIN = "admin"
    OWNER = "owner"


class Services(Protocol):
    """The services that an operator reaches."""

    def members(self) -> MembersPeer:
        """Gives a workspace's members."""


@app.command("invite")
def invite(
    context: typer.Context,
    workspace: Workspace,
    email: Annotated[str, typer.Argument(help="Their e-mail address: a name to show. Nothing is sent.")],
    role: Annotated[Role, typer.Option(help="What they may do; see docs/dashboard.md.")] = Role.AUDITOR,
) -> None:
    """Invites somebody, and shows the address at which they join, this once. It is good for three days."""
    invitation = call(_services(context).members, lambda peer: peer.invite(workspace, email, role.value))
    with invitation.url:
        _print(invitation.url.expose().decode())
    _print(f"{invitation.member_id} is invited until {invitation.expires:%Y-%m-%d %H:%M} UTC.")


@app.command("list")
def list_members(context: typer.Context, workspace: Workspace) -> None:
    """Lists who is a member or invited."""
    members = call(_services(context).members, lambda peer: peer.list_members(workspace))
    table = Table("Member", "E-mail", "Role", "State")
    for each in members:
        table.add_row(each.id, each.email, each.role, each.state)
    _console.print(table)


@app.command("role")
def change_role(
    context: typer.Context,
    workspace: Workspace,
    member: MemberId,
    role: Annotated[Role, typer.Argument(help="The other role.")],
) -> None:
    """Gives a member another role. They have to sign in again."""
    call(_services(context).members, lambda peer: peer.change_role(workspace, member, role.value))
    _print(f"{member} is {role.value}.")


@app.command("remove")
def remove(context: typer.Context, workspace: Workspace, member: MemberId) -> None:
    """Removes a member: their sessions end within seconds. The last owner stays."""
    call(_services(context).members, lambda peer: peer.remove(workspace, member))
    _print(f"{member} is removed.")


def _services(context: typer.Context) -> Services:
    services: Services = context.obj
    return services


def _print(sentence: str) -> None:
    _console.print(sentence, markup=False, highlight=False, soft_wrap=True)
