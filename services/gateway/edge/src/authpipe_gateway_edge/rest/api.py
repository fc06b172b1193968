"""What every resource of /v1 needs: the rules, who asks, and how errors are described."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from authpipe_gateway_edge.domain.containing import Containing
from authpipe_gateway_edge.domain.importing import Importing
from authpipe_gateway_edge.domain.managing import Managing
from authpipe_gateway_edge.domain.proving import Proving
from authpipe_gateway_edge.domain.webhooks import Webhooks
from authpipe_gateway_edge.domain.words import Caller
from authpipe_gateway_edge.rest import schemas
from authpipe_gateway_edge.rest.tokens import bearer


@dataclass(frozen=True, slots=True)
class Api:
    """What the resources need.

    Args:
        managing: The rules over names.
        importing: The rules over what is brought.
        webhooks: The rules over webhooks' signatures.
        proving: The rules over proofs of keys.
        containing: The rules over incidents and containment.
        public_url: How browsers reach us.
    """

    managing: Managing
    importing: Importing
    webhooks: Webhooks
    proving: Proving
    containing: Containing
    public_url: str

    @property
    def callback(self) -> str:
        """Our own redirect URI."""
        return f"{self.public_url}/oauth/callback"


def caller_of(request: Request) -> Caller:
    """Gives who asks.

    Raises:
        ApiKeyMissingError: There is no API key.
    """
    return Caller(bearer(request.scope["headers"]), request.state.request_id, request.state.source)


CallerDep = Annotated[Caller, Depends(caller_of)]
PageSize = Annotated[int, Query(ge=1, le=200)]
PageToken = Annotated[str, Query(max_length=200)]
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": schemas.ProblemOut, "content": {"application/problem+json": {}}} for code in (400, 401, 403, 404)
}
