"""`devstack up | down | status | logs`: the whole real system on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from authpipe_devstack.layout import PROCESSES
from authpipe_devstack.stack import Stack, StackError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
_console = Console()
Home = Annotated[Path, typer.Option(envvar="AUTHPIPE_HOME", help="The folder where everything lives.")]
_HOME = Path(".authpipe")


@app.command()
def up(
    home: Home = _HOME,
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is healthy.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    trace_ratio: Annotated[float, typer.Option(help="The share of traces that is kept.")] = 0.01,
) -> None:
    """Brings up whatever does not run. In the foreground it shows a live status until Ctrl-C, which stops everything."""
    began = time.monotonic()
    stack = Stack(home.resolve(), lambda step: _console.print(f"[dim]·[/dim] {step}"), log_level, trace_ratio)
    try:
        stack.up()
    except StackError as error:
        _console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    _console.print(f"Everything is healthy, after {time.monotonic() - began:.1f} s.\n")
    _next_steps(stack)
    if detach:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Live(_table(stack.status()), console=_console, refresh_per_second=1) as live:
            while True:
                time.sleep(2)
                live.update(_table(stack.status()))
    except KeyboardInterrupt:
        _console.print("Stopping…")
    finally:
        stack.down()
    _console.print("Everything is stopped.")


@app.command()
def down(home: Home = _HOME) -> None:
    """Stops everything that `up` started. What is stored stays."""
    Stack(home.resolve(), lambda _: None).down()
    _console.print("Everything is stopped.")


@app.command()
def status(
    home: Home = _HOME, *, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Says what runs where, and whether it is healthy. Exit code 1 when something is not."""
    found = Stack(home.resolve(), lambda _: None).status()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _console.print(_table(found))
    if not all(process["healthy"] for process in found["processes"]):
        raise typer.Exit(1)


@app.command()
def logs(
    process: Annotated[str, typer.Argument(help="One of: " + ", ".join(each.name for each in PROCESSES))],
    home: Home = _HOME,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing new lines.")] = False,
) -> None:
    """Shows the log of a process."""
    file = home.resolve() / "log" / f"{process}.log"
    if not file.exists():
        _console.print(f"[red]There is no log of {process}. Names: {', '.join(each.name for each in PROCESSES)}.[/red]")
        raise typer.Exit(1)
    subprocess.run(["tail", "-n", "50", *(["-f"] if follow else []), str(file)], check=False)


def _table(found: dict) -> Table:  # type: ignore[type-arg]
    table = Table(box=None, pad_edge=False)
    for column in ("process", "address", "pid", "health"):
        table.add_column(column)
    for process in found["processes"]:
        health = "[green]healthy[/green]" if process["healthy"] else "[red]away[/red]"
        table.add_row(process["name"], process["address"], str(process["pid"] or "–"), health)
    for cluster in found["clusters"]:
        health = "[green]running[/green]" if cluster["pid"] else "[red]away[/red]"
        table.add_row(f"postgres-{cluster['name']}", cluster["address"], str(cluster["pid"] or "–"), health)
    playground = "[green]running[/green]" if found["playground_pid"] else "[red]away[/red]"
    address = found["playground_issuer"].removeprefix("https://")
    table.add_row("playground Provider", address, str(found["playground_pid"] or "–"), playground)
    return table


def _next_steps(stack: Stack) -> None:
    layout = stack.layout
    ca, key = stack.public_ca.certificate_file, layout.api_key_file
    url = stack.playground_url()
    _console.print("Connect an account (your browser will warn: the certificate is of this machine's own CA):")
    _console.print(f"  {url}\n", soft_wrap=True)
    _console.print("Enter the dashboard with a passkey (your browser has to believe the CA below):")
    _console.print(f"  {stack.dashboard_url()}\n", soft_wrap=True)
    _console.print(f"Your API key is in {key}\n", soft_wrap=True)
    curl = f'curl --cacert {ca} -H "Authorization: Bearer $(cat {key})"'
    _console.print(f"  {curl} {layout.rest_url}/v1/connections", soft_wrap=True)
    _console.print(f"  {curl} {layout.rest_url}/v1/connections/CONNECTION_ID/token\n", soft_wrap=True)


if __name__ == "__main__":
    app()
