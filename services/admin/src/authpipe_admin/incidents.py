"""`authpipe-admin incidents …`: what detectors found, and what became of it."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.table import Table

from authpipe_admin.peers import Evidence, Incident, IncidentsPeer
from authpipe_admin.calling import call

_console = Console()
_COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "dim"}

app = typer.Typer(no_args_is_help=True, help="What was found alarming in the log, and what became of it.")
Id = Annotated[str, typer.Argument(help="The incident: inc_…")]


class Services(Protocol):
    """The services that an operator reaches."""

    def incidents(self) -> IncidentsPeer:
        """Gives the incidents."""


@app.command("list")
def list_incidents(
    context: typer.Context,
    workspace: Annotated[str, typer.Option(help="Only of this workspace.")] = "",
    *,
    every: Annotated[bool, typer.Option("--all", help="Also those that are closed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Lists incidents, newest first, with what is left of the time to tell the customer."""
    found = call(_services(context).incidents, lambda peer: peer.list_incidents(workspace, open_only=not every))
    if as_json:
        typer.echo(json.dumps([_members(each) for each in found], indent=1))
        return
    if not found:
        _console.print("There is none." if every else "None is open.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("incident", "severity", "found", "of", "workspace", "state", "tell the customer"):
        table.add_column(column)
    now = dt.datetime.now(dt.UTC)
    for each in found:
        colour = _COLOURS.get(each.severity, "")
        shown = [each.id, f"[{colour}]{each.severity}[/{colour}]", each.detector, each.subject, each.workspace or "–"]
        table.add_row(*shown, each.state.replace("_", " "), _left(each, now))
    _console.print(table)


@app.command("show")
def show(
    context: typer.Context,
    incident: Id,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="With salts and proofs, for programs.")] = False,
) -> None:
    """Shows an incident with its evidence: events, each with the proof that it is in the log."""
    found, evidence = call(_services(context).incidents, lambda peer: peer.get(incident))
    if as_json:
        shown = [{"trail": e.trail, "leaf_index": e.leaf_index, "record": e.record, "salt": e.salt, "proof": e.proof}
                 for e in evidence]  # fmt: skip
        typer.echo(json.dumps(_members(found) | {"evidence": shown}, indent=1))
        return
    where = f" in workspace {found.workspace}" if found.workspace else ""
    _print(f"{found.severity.upper()}: {found.detector} of {found.subject}{where}")
    _print(f"Found {found.opened_at:%Y-%m-%d %H:%M:%S} UTC. State: {found.state.replace('_', ' ')}.")
    if found.notify_by is not None:
        _print(f"Tell the customer: {_left(found, dt.datetime.now(dt.UTC))}.")
    for each in evidence:
        _print(_line(each))


@app.command("acknowledge")
def acknowledge(context: typer.Context, incident: Id) -> None:
    """Says that somebody looks into it."""
    _change(context, incident, "acknowledged", "Somebody looks into it now.")


@app.command("notified")
def notified(context: typer.Context, incident: Id) -> None:
    """Says that the customer was told: the clock of 24 hours stops."""
    _change(context, incident, "customer_notified", "The customer was told; the clock has stopped.")


@app.command("close")
def close(context: typer.Context, incident: Id) -> None:
    """Says that it is dealt with. What happens anew opens another incident."""
    _change(context, incident, "closed", "It is closed.")


def _change(context: typer.Context, incident: str, state: str, done: str) -> None:
    call(_services(context).incidents, lambda peer: peer.change(incident, state))
    _print(done)


def _services(context: typer.Context) -> Services:
    services: Services = context.obj
    return services


def _left(incident: Incident, now: dt.datetime) -> str:
    if incident.notify_by is None:
        return "–"
    if incident.state in {"customer_notified", "closed"}:
        return "done"
    left = incident.notify_by - now
    hours = int(abs(left).total_seconds() // 3600)
    return f"within {hours} h" if left > dt.timedelta(0) else f"overdue for {hours} h"


def _line(evidence: Evidence) -> str:
    proved = "proved" if evidence.proof else "not in a checkpoint yet"
    if not evidence.record:
        return f"  {evidence.trail} leaf {evidence.leaf_index}: its body is expired, {proved}"
    event = json.loads(evidence.record)["event"]
    told = ", ".join(
        f"{key} {event[key]}" for key in ("actor", "target", "purpose", "reason", "source") if key in event
    )
    return f"  {event['time']} {event['name']}: {told} ({evidence.trail} leaf {evidence.leaf_index}, {proved})"


def _members(incident: Incident) -> dict[str, object]:
    return {
        "id": incident.id,
        "detector": incident.detector,
        "severity": incident.severity,
        "workspace": incident.workspace,
        "subject": incident.subject,
        "state": incident.state,
        "opened_at": incident.opened_at.isoformat(),
        "notify_by": incident.notify_by.isoformat() if incident.notify_by else None,
    }


def _print(sentence: str) -> None:
    _console.print(sentence, markup=False, highlight=False, soft_wrap=True)
