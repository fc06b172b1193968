"""Puts authpipe together."""

from __future__ import annotations

import typer

from authpipe_cli import audit

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What customers of an Authpipe do from a terminal.",
)
app.add_typer(audit.app, name="audit")


@app.callback()
def configure() -> None:
    """What customers of an Authpipe do from a terminal."""


def main() -> None:
    """Runs authpipe."""
    app()


if __name__ == "__main__":
    main()
