"""`GET /v1/connections/{id}/token`: the hot route, bare ASGI (a framework costs 160 µs here, this 30).

The body is put together from bytes: the credential is never a `str` on its way out.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from authpipe_gateway_edge.domain.serving import Served, Serving
from authpipe_gateway_edge.domain.words import Caller
from authpipe_gateway_edge.errors import ApiKeyMissingError, MalformedRequestError
from authpipe_gateway_edge.rest.problems import new_request_id, problem_document
from authpipe_rpc import IncidentError
from authpipe_sensitive import DomainError, Label, Secret, get_log

Send = Callable[[dict[str, Any]], Awaitable[None]]
PATH = re.compile(r"/v1/connections/([^/]{1,80})/token")
_LONGEST_TTL = 86_400
_SECURE = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"strict-transport-security", b"max-age=31536000"),
]


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> Secret:
    """Gives the API key of a request (RFC 6750, section 2.1).

    Raises:
        ApiKeyMissingError: There is none.
    """
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and 0 < len(key) <= 200:
                return Secret(key.strip())
    raise ApiKeyMissingError


class TokenRoute:
    """Serves live credentials.

    Args:
        serving: The rules.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def __call__(self, scope: dict[str, Any], connection: str, source: str, send: Send) -> None:
        """Answers one request that came from an address."""
        request_id = new_request_id()
        try:
            caller = Caller(bearer(scope["headers"]), request_id, source)
            served = await self._serving.serve(caller, connection, _min_ttl(scope["query_string"]))
        except DomainError as error:
            await _refuse(send, error, request_id)
            return
        except Exception as error:  # becomes a problem document with the request id, never its text  # noqa: BLE001  # handed on or shown with an incident id, never swallowed
            get_log().error("incident", error=error)
            await _refuse(send, IncidentError(), request_id)
            return
        with served.payload:
            await _respond(send, 200, b"application/json", _body(served), request_id, refresh=_refresh(served))


def _body(served: Served) -> bytes:
    head = b'{"connection_id":"' + served.connection.encode() + b'","kind":"' + served.kind.encode() + b'",'
    payload = served.payload.expose()
    if served.kind in {"oauth2", "oauth1", "basic"}:
        return head + payload[1:]
    # The characters were checked when it was stored: printable ASCII; JSON escapes two of them.
    value = bytes(payload).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return head + b'"' + served.kind.encode() + b'":"' + value + b'"}'


def _refresh(served: Served) -> bytes:
    """Gives the header `Authpipe-Refresh`: a token with a parameter (RFC 9651); empty: none."""
    if not served.refresh:
        return b""
    reason = f";reason={served.refresh_failure}" if served.refresh_failure else ""
    return f"{served.refresh}{reason}".encode()


def _min_ttl(query: bytes) -> int:
    if not query:
        return 0
    values = parse_qs(query.decode("latin-1")).get("min_ttl", ["0"])
    if not values[-1].isdigit() or len(values[-1]) > 6 or int(values[-1]) > _LONGEST_TTL:
        raise MalformedRequestError(field=Label("min_ttl"))
    return int(values[-1])


async def _refuse(send: Send, error: DomainError, request_id: str) -> None:
    status, document, retry_after = problem_document(error, request_id)
    await _respond(send, status, b"application/problem+json", document, request_id, retry_after)


async def _respond(
    send: Send,
    status: int,
    content_type: bytes,
    body: bytes,
    request_id: str,
    retry_after: int = 0,
    refresh: bytes = b"",
) -> None:
    headers = [(b"content-type", content_type), (b"x-request-id", request_id.encode()), *_SECURE]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    if refresh:
        headers.append((b"authpipe-refresh", refresh))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
