"""Problem documents (RFC 9457): a stable type, a detail a person can act on, the request id. No input is echoed."""

from __future__ import annotations

import json
import os

from authpipe_gateway_edge.errors import problem_of
from authpipe_sensitive import DomainError, get_log

_TYPE = "https://authpipe.dev/problems/"


_ID_SIZE = 12
_drawn: list[str] = []


def new_request_id() -> str:
    """Gives the id of a request. They are drawn 64 at a time: a call of the kernel costs about 7 µs."""
    if not _drawn:
        bits = os.urandom(64 * _ID_SIZE)
        _drawn.extend(bits[at : at + _ID_SIZE].hex() for at in range(0, len(bits), _ID_SIZE))
    return f"req_{_drawn.pop()}"


def problem_document(error: DomainError, request_id: str) -> tuple[int, bytes, int]:
    """Gives the HTTP status and the document of an error, and after how many seconds to try again; 0: not at all."""
    reason, problem = problem_of(error)
    if problem.http == 404:
        # The same for what is another's and what does not exist, down to the type.
        reason = "NOT_FOUND" if reason != "CONNECT_SESSION_INVALID" else reason
    if reason == "INTERNAL":
        get_log().error("request failed", error=error)
    document: dict[str, object] = {
        "type": _TYPE + reason.lower().replace("_", "-"),
        "title": problem.title,
        "status": problem.http,
        "detail": problem.detail,
        "reason": reason,
        "request_id": request_id,
    }
    for name, value in error.metadata.items():
        if name in {"field", "cause", "provider_reason", "incident_id"}:
            document[name] = value
    return problem.http, json.dumps(document).encode(), problem.retry_after_seconds
