"""What every resource of /v1 needs: the rules, who asks, and how errors are described."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from authpipe_gateway_edge.domain.containing import Containing
from authpipe_gateway_edge.domain.importing import Importing
from authpipe_gateway_edge.domain.managing import Managing
from authpipe_gateway_edge.domain.membering import Membering
from authpipe_gateway_edge.domain.proving import Proving
from authpipe_gateway_edge.domain.webhooks import Webhooks
from authpipe_gateway_edge.domain.words import Caller
from authpipe_gateway_edge.errors import CrossOriginError
from authpipe_gateway_edge.rest import schemas
from authpipe_gateway_edge.rest.tokens import bearer
from authpipe_sensitive import Secret

SESSION_COOKIE = "__Host-authpipe_session"
_LONGEST_TOKEN = 200


@dataclass(frozen=True, slots=True)
class Api:
    """What the resources need.

    Args:
        managing: The rules over names.
        importing: The rules over what is brought.
        webhooks: The rules over webhooks' signatures.
        proving: The rules over proofs of keys.
        containing: The rules over incidents and containment.
        membering: The rules over members.
        public_url: How browsers reach us.
    """

    managing: Managing
    importing: Importing
    webhooks: Webhooks
    proving: Proving
    containing: Containing
    membering: Membering
    public_url: str

    @property
    def callback(self) -> str:
        """Our own redirect URI."""
        return f"{self.public_url}/oauth/callback"


def caller_of(request: Request) -> Caller:
    """Gives who asks: an API key, or else a session of the dashboard.

    Raises:
        ApiKeyMissingError: There is neither.
        CrossOriginError: There is a session, and another site's page asks.
    """
    state = request.state
    session = None if "authorization" in request.headers else session_of(request)
    if session is None:
        return Caller(bearer(request.scope["headers"]), state.request_id, state.source)
    require_own_page(request)
    return Caller(session, state.request_id, state.source, is_session=True)


def session_of(request: Request) -> Secret | None:
    """Gives the token of the browser's session."""
    cookie = request.cookies.get(SESSION_COOKIE, "")
    return Secret(cookie.encode()) if 0 < len(cookie) <= _LONGEST_TOKEN else None


def require_own_page(request: Request) -> None:
    """Returns when the browser says that our own page asks.

    Raises:
        CrossOriginError: It does not: another site's page asks, or no browser.
    """
    if request.headers.get("sec-fetch-site", "") != "same-origin":
        raise CrossOriginError


CallerDep = Annotated[Caller, Depends(caller_of)]
PageSize = Annotated[int, Query(ge=1, le=200)]
PageToken = Annotated[str, Query(max_length=200)]
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": schemas.ProblemOut, "content": {"application/problem+json": {}}} for code in (400, 401, 403, 404)
}
