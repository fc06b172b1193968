"""Puts authpipe-witness together."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from authpipe_transparency import FormatError, VerifierKey
from authpipe_witness.feeding import Feeder, FeedError, client
from authpipe_witness.home import Home, HomeError
from authpipe_witness.serving import server

_console, _errors = Console(), Console(stderr=True)
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Cosigns checkpoints of logs, and carries them between a log and its witnesses.",
)
Folder = Annotated[
    Path, typer.Option("--home", help="The witness's folder. Back it up, and never run two from one copy.")
]
Ca = Annotated[Path | None, typer.Option(help="Whom to believe, PEM; without it, whom this machine trusts.")]


@app.command("init")
def init(
    home: Folder,
    name: Annotated[str, typer.Option(help="The witness's name, a URL without its scheme: witness.example/w1.")],
    log: Annotated[list[str], typer.Option(help="The verifier key of a log to cosign; again for each.")],
) -> None:
    """Makes a witness, and prints its verifier key."""
    try:
        made = Home.make(home, name, log)
    except (HomeError, FormatError) as error:
        _errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    _console.print(str(made.key), markup=False, soft_wrap=True)


@app.command("know")
def know(
    home: Folder,
    log: Annotated[list[str], typer.Option(help="The verifier key of a further log; again for each.")],
) -> None:
    """Lets the witness cosign further logs. Start it again afterwards."""
    try:
        Home(home).know(*map(VerifierKey.parse, log))
    except (HomeError, FormatError) as error:
        _errors.print(str(error), markup=False)
        raise typer.Exit(1) from None


@app.command("serve")
def serve(
    home: Folder,
    certificate: Annotated[Path, typer.Option(help="PEM of its TLS certificate.")],
    key: Annotated[Path, typer.Option(help="PEM of the certificate's key, PKCS #8.")],
    host: Annotated[str, typer.Option(help="Where it listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="On which port.")] = 8443,
) -> None:
    """Serves POST /add-checkpoint (C2SP tlog-witness), over TLS 1.3, until it is told to stop."""
    try:
        made = Home(home)
    except HomeError as error:
        _errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
    asyncio.run(server(made, host, port, certificate, key).serve())


@app.command("feed")
def feed(
    log: Annotated[str, typer.Option(help="The log's prefix: https://api.example.com/log/control.")],
    witness: Annotated[str, typer.Option(help="The witness's prefix.")],
    ca: Ca = None,
    every: Annotated[float, typer.Option(min=0, help="Seconds between two looks; 0: once.")] = 10.0,
) -> None:
    """Carries a log's checkpoints to a witness, and its cosignatures back. Neither side trusts it."""
    with client(ca) as http:
        feeder = Feeder(http, log, witness)
        while True:
            try:
                size = feeder.feed()
            except FeedError as error:
                _errors.print(str(error), markup=False)
                if not every:
                    raise typer.Exit(1) from None
            else:
                if not every:
                    _console.print(f"The tree of {size:,} leaves is cosigned.")
                    return
            time.sleep(every)


def main() -> None:
    """Runs authpipe-witness."""
    app()


if __name__ == "__main__":
    main()
