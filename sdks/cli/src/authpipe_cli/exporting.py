"""Fetching an export from a gateway: over TLS 1.3 alone, each trail to its end, or no file."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx2

TRAILS = ("user-credentials", "client-secrets", "control")
_PATIENCE_SECONDS = 60.0


class ExportError(Exception):
    """The gateway did not give the export. The message says what it said."""


def read_key(file: Path) -> str:
    """Reads an API key from a file that nobody else may read.

    Raises:
        ExportError: It is not there, or others may read it.
    """
    try:
        if file.stat().st_mode & 0o077:
            raise ExportError(f"Others may read {file}. Make it yours alone: chmod 600 {file}")
        return file.read_text().strip()
    except OSError:
        raise ExportError(f"There is no API key in {file}.") from None


def fetch(  # one per choice
    url: str,
    api_key: str,
    ca: Path | None,
    query: Mapping[str, str],
    seen: Mapping[str, int],
    to: Path,
    progress: Callable[[int], None],
) -> None:
    """Fetches an export of all trails into a file.

    Args:
        url: Of the gateway.
        api_key: With the scope audit:read.
        ca: Who signed the gateway's certificate; none: whom this machine trusts.
        query: since and until.
        seen: The size of the newest checkpoint seen of each trail, by its name.
        to: The file; it is there when all of it is.
        progress: Is told how many bytes came since it was told last.

    Raises:
        ExportError: The gateway refused or broke off.
    """
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    beside = to.with_name(f"{to.name}.{os.getpid()}")
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        with (
            httpx2.Client(verify=context, headers=headers, timeout=_PATIENCE_SECONDS, trust_env=False) as http,
            beside.open("wb") as file,
        ):
            for trail in TRAILS:
                asked = {**query, "trail": trail, "seen_size": str(seen.get(trail, 0))}
                with http.stream("GET", f"{url.rstrip('/')}/v1/audit/export", params=asked) as answer:
                    if answer.status_code != httpx2.codes.OK:
                        answer.read()
                        raise ExportError(_said(answer))
                    for piece in answer.iter_raw():
                        file.write(piece)
                        progress(len(piece))
        beside.replace(to)
    except httpx2.HTTPError as error:
        raise ExportError(f"The gateway did not answer as it should ({type(error).__name__}). Try again.") from None
    finally:
        beside.unlink(missing_ok=True)


def _said(answer: httpx2.Response) -> str:
    try:
        problem = answer.json()
        return f"{problem['title']}: {problem['detail']} ({problem['reason']}, request {problem['request_id']})"
    except (ValueError, KeyError, TypeError):
        return f"The gateway answered {answer.status_code}."
