"""`authpipe-admin catalog`: the files that describe Providers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from authpipe_providers import EntryError, load_catalog, parse
from authpipe_providers import schema as entry_schema

_console = Console(soft_wrap=True)
_errors = Console(stderr=True, soft_wrap=True)

app = typer.Typer(no_args_is_help=True, help="The files that describe Providers.")

_CAUSES = {
    "SCHEMA": "it does not fit the schema here",
    "NO_JSON": "it is no JSON",
    "PATTERN_NOT_SIMPLE": "a pattern is made of characters, classes and at most three open repetitions, without groups",
    "EXAMPLE_DOES_NOT_FIT": "the example of a value does not fit its own rule",
    "PLACEHOLDER_NOT_DECLARED": "a URL has a placeholder that is not in `values`",
    "PLACEHOLDER_IN_DOMAIN": "a placeholder in a host stands before two fixed labels, or has a closed list of values",
    "URL_NOT_ALLOWED": "a URL is https, with a plain host, without user or fragment",
    "AUTHORIZATION_ENDPOINT_MISSING": "authorization_code needs an authorization_endpoint",
    "NAME_MISSING": "a header or parameter needs a name",
    "NOWHERE_TO_GO": "an entry without oauth2 needs an api",
}


@app.command("lint")
def lint(
    files: Annotated[list[Path], typer.Argument(help="Files to check, one entry each.", exists=True, dir_okay=False)],
) -> None:
    """Checks files as the catalog's own and those of workspaces are checked; ends with 1 where one is wrong."""
    wrong = 0
    names: dict[str, Path] = {}
    for file in files:
        if (problem := _problem(file, names)) is not None:
            wrong += 1
            _errors.print(f"{file}: {problem}.")
    checked = f"{len(files)} checked" + ("" if not wrong else f", {wrong} wrong")
    (_errors if wrong else _console).print(f"{checked}.")
    if wrong:
        raise typer.Exit(1)


@app.command("list")
def list_entries() -> None:
    """Lists the Providers that come with this version."""
    table = Table(box=None)
    for title in ("NAME", "PROVIDER", "KINDS", "USED TWICE", "ASKS FOR", "READ"):
        table.add_column(title)
    for entry in load_catalog().values():
        speaks = entry.endpoints
        kinds = {
            "oauth2": speaks is not None and not speaks.temporary_endpoint,
            "oauth1": speaks is not None and bool(speaks.temporary_endpoint),
            "api_key": entry.api_key is not None,
            "basic": entry.basic,
        }
        table.add_row(
            entry.name,
            entry.display_name,
            ", ".join(kind for kind, there in kinds.items() if there),
            entry.rotation.value if entry.endpoints is not None else "",
            ", ".join(rule.name for rule in entry.values),
            entry.read_on or "not yet",
        )
    _console.print(table)


@app.command("schema")
def schema() -> None:
    """Prints the JSON Schema of an entry."""
    _console.print_json(json.dumps(entry_schema()))


def _problem(file: Path, names: dict[str, Path]) -> str | None:
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return _CAUSES["NO_JSON"]
    if not isinstance(document, dict):
        return "it is no JSON object"
    try:
        entry = parse(document)
    except EntryError as error:
        cause, field = str(error.metadata.get("cause", "")), error.metadata.get("field")
        return _CAUSES.get(cause, cause) + (f" ({field})" if field else "")
    if file.stem != entry.name:
        return f"a file bears the name of its entry, {entry.name}.json"
    if entry.name in names:
        return f"{names[entry.name]} has this name already"
    names[entry.name] = file
    return None
