"""`authpipe audit`: export the log, and verify an export without asking anybody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from authpipe_cli.emitters import CaError, verifier
from authpipe_cli.exporting import ExportError, fetch, read_key
from authpipe_cli.seen import Seen, SeenError
from authpipe_cli.verifying import headers, verify
from authpipe_transparency import FormatError, VerifierKey
from authpipe_transparency.findings import Finding
from authpipe_transparency.verification import Known, Section

_SEEN = Path(typer.get_app_dir("authpipe")) / "logs-seen.json"
_console, _errors = Console(), Console(stderr=True)
_CODES = (
    "Exit codes: 0 it is sound; 3 no whole export; 4 a checkpoint is not the log's; 5 an event was changed;"
    " 6 the tree was changed; 7 it contradicts what was seen before; 8 events are left out;"
    " 9 a body is gone without a logged reason; 10 too few witnesses; 11 an event is not its emitter's; 1 anything else."
)

app = typer.Typer(no_args_is_help=True, help="The audit log: what happened, and that nobody changed it since.")
SeenOption = Annotated[
    Path, typer.Option("--seen", help="Where it is remembered which keys and checkpoints were seen. Back it up.")
]


@app.command("export")
def export(
    to: Annotated[Path, typer.Argument(help="The file to write.")],
    url: Annotated[str, typer.Option(help="The gateway, such as https://api.example.com.")],
    key_file: Annotated[Path, typer.Option(help="A file with an API key of scope audit:read, readable by you alone.")],
    ca: Annotated[Path | None, typer.Option(help="Who signed the gateway's certificate, PEM.")] = None,
    since: Annotated[str, typer.Option(help="Only from then on: 2026-11-01T00:00:00Z.")] = "",
    until: Annotated[str, typer.Option(help="Only before then.")] = "",
    seen_file: SeenOption = _SEEN,
) -> None:
    """Exports your workspace's log with its proofs. Without --since and --until nothing can be left out of it."""
    try:
        known = Seen(seen_file).logs.values()
        seen = {log.key.name.rpartition("/")[2]: log.newest.size for log in known if log.newest}
        query = {name: value for name, value in (("since", since), ("until", until)) if value}
        with _progress() as progress:
            task = progress.add_task("Exporting", total=None)
            fetch(url, read_key(key_file), ca, query, seen, to, lambda size: progress.advance(task, size))
    except (ExportError, SeenError) as error:
        _errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    _console.print(f"{to} is written. Verify it: authpipe audit verify {to}", markup=False)


@app.command("verify", epilog=_CODES)
def verify_export(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What `authpipe audit export` wrote.")],
    key: Annotated[
        list[str] | None,
        typer.Option(
            help="A log's key, from elsewhere than the log. Without it: the one seen before, or the export's."
        ),
    ] = None,
    witness: Annotated[list[str] | None, typer.Option(help="The key of a witness that you trust.")] = None,
    quorum: Annotated[int, typer.Option(min=0, help="How many of them must have cosigned.")] = 0,
    emitters: Annotated[
        Path | None,
        typer.Option(help="The CA of the processes that emit events, PEM, from elsewhere than the log."),
    ] = None,
    trust_domain: Annotated[str, typer.Option(help="With --emitters: their SPIFFE trust domain.")] = "",
    seen_file: SeenOption = _SEEN,
) -> None:
    """Verifies an export: signatures, the tree, what was seen before, and that nothing is left out. It asks nobody."""
    if (emitters is None) != (not trust_domain):
        raise typer.BadParameter("--emitters and --trust-domain belong together.")
    try:
        seen = Seen(seen_file)
        verify_chain = verifier(emitters, trust_domain) if emitters else None
        known = replace(_known(file, seen, key or [], witness or [], quorum), verify_chain=verify_chain)
        with _progress() as progress:
            task = progress.add_task("Verifying", total=file.stat().st_size)
            sections = verify(file, known, lambda size: progress.advance(task, size))
        for section in sections:
            seen.remember(known.keys[section.checkpoint.origin], section.checkpoint)
        seen.save()
    except Finding as finding:
        _errors.print(str(finding), markup=False)
        raise typer.Exit(int(finding.kind)) from None
    except (FormatError, SeenError, CaError, OSError) as error:
        _errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    _show(sections, is_ca_known=emitters is not None)


def _known(file: Path, seen: Seen, keys: list[str], witnesses: list[str], quorum: int) -> Known:
    known = {origin: log.key for origin, log in seen.logs.items()}
    known |= {parsed.name: parsed for parsed in map(VerifierKey.parse, keys)}
    for header in headers(file):
        if header.origin not in known:
            known[header.origin] = VerifierKey.parse(header.key)
            _errors.print(
                f"The log {header.origin} is seen for the first time. Its key is taken from the export:\n"
                f"  {header.key}\nCompare it with the one that was published, and give that with --key.",
                markup=False,
            )
    newest = {origin: {log.newest.size: log.newest.root} for origin, log in seen.logs.items() if log.newest is not None}
    return Known(known, newest, tuple(map(VerifierKey.parse, witnesses)), quorum)


def _show(sections: list[Section], *, is_ca_known: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("trail", "tree", "events", "expired", "complete to", "of", "batches", "witnesses"):
        table.add_column(column, justify="left" if column in {"trail", "witnesses"} else "right")
    for each in sections:
        table.add_row(
            each.checkpoint.origin,
            f"{each.checkpoint.size:,}",
            f"{each.events:,}",
            f"{each.expired:,}",
            f"{each.complete_to:,}",
            f"{each.last:,}",
            f"{each.batches:,}",
            ", ".join(sorted(each.witnesses)) or "none",
        )
    _console.print(table)
    hidden = sum(each.before + each.after for each in sections)
    if hidden:
        _console.print(f"{hidden:,} events are outside the time that was exported; only their hashes are here.")
    if not is_ca_known:
        _console.print("Each event is signed; whose keys signed was not looked at (--emitters, --trust-domain).")
    _console.print("Sound: signatures, trees and chains hold, and agree with what was seen before.")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_errors, transient=True)
