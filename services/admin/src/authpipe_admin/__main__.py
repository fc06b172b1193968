"""Puts authpipe-admin together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from authpipe_rpc import Peer  # first: it sets grpc's cipher list
import typer
from pydantic import ValidationError
from rich.console import Console

from authpipe.keyservice.v1 import administration_pb2_grpc
from authpipe_admin.config import Config
from authpipe_admin import keys
from authpipe_admin.peers import KeyAdministrationPeer

_DEFAULT = Path(os.environ.get("XDG_CONFIG_HOME", str(Path.home() / ".config"))) / "authpipe" / "admin.json"
_console = Console(stderr=True)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs an Authpipe installation. Every act is in the audit log, under the name in your certificate.",
)


@app.callback()
def configure(
    context: typer.Context,
    config: Annotated[
        Path, typer.Option(envvar="AUTHPIPE_ADMIN_CONFIG", help="Your certificate, and where the key services are.")
    ] = _DEFAULT,
) -> None:
    """Runs an Authpipe installation. Every act is in the audit log, under the name in your certificate."""
    context.obj = lambda domain: connect(config, domain)


def connect(file: Path, domain: str) -> KeyAdministrationPeer:
    """Gives the administration of a key domain."""
    try:
        config = Config.model_validate_json(file.read_bytes())
    except OSError:
        _console.print(f"The configuration file {file} cannot be read. Name another with --config.", soft_wrap=True)
        raise typer.Exit(2) from None
    except ValidationError as error:
        wrong = "; ".join(".".join(map(str, each["loc"])) + ": " + each["type"] for each in error.errors())
        _console.print(f"The configuration file {file} is wrong: {wrong}.", soft_wrap=True)
        raise typer.Exit(2) from None
    if domain not in config.keyservices:
        _console.print(
            f"There is no key domain of this name. The configuration has: {', '.join(sorted(config.keyservices))}."
        )
        raise typer.Exit(2)
    stub = administration_pb2_grpc.KeyAdministrationStub
    peer: Peer[Any] = Peer(config.keyservices[domain], config.files, stub)
    return KeyAdministrationPeer(peer)


app.add_typer(keys.app, name="keys")


def main() -> None:
    """Runs the command that was typed."""
    app()


if __name__ == "__main__":
    main()
