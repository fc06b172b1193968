"""The ASGI application: the hot route first, then limits and headers, then FastAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from authpipe_gateway_edge.domain.ports import AuditLog, Coordinator, SignIn
from authpipe_gateway_edge.domain.proxying import Proxying
from authpipe_gateway_edge.domain.serving import Serving
from authpipe_gateway_edge.domain.sources import Sources
from authpipe_gateway_edge.errors import MalformedRequestError, NotFoundError, TooLargeError, problem_of
from authpipe_gateway_edge.rest import audit, connect, containment, dashboard, members, provider_configs, resources
from authpipe_gateway_edge.rest.api import Api
from authpipe_gateway_edge.rest.proxy import ProxyRoute
from authpipe_gateway_edge.rest.problems import new_request_id, problem_document
from authpipe_gateway_edge.rest.tokens import PATH, Send, TokenRoute
from authpipe_rpc import IncidentError, PeerRefused
from authpipe_sensitive import DomainError, Label, RedactedError, Status, get_log
from authpipe_telemetry import span

Receive = Callable[[], Awaitable[dict[str, Any]]]
_LONGEST_BODY = 64 * 1024


class EdgeApp:
    """Serves REST.

    Args:
        api: The resources.
        serving: The hot route.
        proxying: Requests to Providers' APIs.
        coordinator: For the hosted page.
        sign_in: For the dashboard.
        log: For whoever verifies it.
        sources: Tells where requests come from.
        ready: Says whether what is behind us answers.
        security_contact: For /.well-known/security.txt.
    """

    def __init__(
        self,
        api: Api,
        serving: Serving,
        proxying: Proxying,
        coordinator: Coordinator,
        sign_in: SignIn,
        log: AuditLog,
        sources: Sources,
        ready: Callable[[], Awaitable[bool]],
        security_contact: str,
    ) -> None:
        self._sources = sources
        self._token_route = TokenRoute(serving)
        self._proxy_route = ProxyRoute(proxying)
        self._app = _fastapi(api, coordinator, sign_in, log, ready, security_contact)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # type: ignore[arg-type]
            return
        source = self._sources.of_scope(scope.get("client"), scope["headers"])
        if scope["method"] == "GET" and (found := PATH.fullmatch(scope["path"])):
            await self._token_route(scope, found[1], source, send)
            return
        if scope["path"].startswith("/v1/proxy/"):
            await self._proxy_route(scope, source, receive, send)
            return
        request_id = new_request_id()
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "source": source}
        try:
            body = await _read(receive)
        except TooLargeError as error:
            await _send_problem(send, error, request_id)
            return
        # The request's id and nothing of its address: there are tokens in some.
        with span("rest", request_id=Label(request_id)):
            await self._app(scope, _replayed(body, receive), _with_headers(send, request_id))  # type: ignore[arg-type]


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > _LONGEST_BODY:
            raise TooLargeError
        if not message.get("more_body"):
            return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> dict[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(send: Send, request_id: str) -> Send:
    async def with_headers(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"strict-transport-security", b"max-age=31536000"),
            ]
        await send(message)

    return with_headers


async def _send_problem(send: Send, error: DomainError, request_id: str) -> None:
    status, document, _ = problem_document(error, request_id)
    headers = [(b"content-type", b"application/problem+json"), (b"x-request-id", request_id.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": document})


def _fastapi(
    api: Api,
    coordinator: Coordinator,
    sign_in: SignIn,
    log: AuditLog,
    ready: Callable[[], Awaitable[bool]],
    security_contact: str,
) -> FastAPI:
    app = FastAPI(
        title="Authpipe",
        version="1",
        description="Keeps OAuth tokens, API keys and webhook secrets, refreshes and serves them.",
        docs_url=None,
        redoc_url=None,
        # FastAPI's own spans have the address with its query: the state and code of a flow, the token of a session.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.include_router(provider_configs.router(api))
    app.include_router(resources.router(api))
    app.include_router(audit.router(api))
    app.include_router(containment.router(api))
    app.include_router(members.router(api))
    app.include_router(dashboard.router(api, sign_in))
    app.include_router(audit.public_router(log))
    app.include_router(connect.router(coordinator, api.public_url))

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        return PlainTextResponse("ready\n") if await ready() else PlainTextResponse("not ready\n", status_code=503)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Authpipe API")

    @app.get("/.well-known/security.txt", include_in_schema=False)
    async def security_txt() -> Response:
        return PlainTextResponse(
            f"Contact: {security_contact}\nExpires: 2027-12-31T23:59:59Z\nPreferred-Languages: en\n"
        )

    @app.exception_handler(DomainError)
    async def on_domain_error(request: Request, error: DomainError) -> Response:
        return _problem(request, error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        # The names of fields alone: pydantic's messages can quote what came in.
        try:
            field = Label(".".join(str(part) for part in error.errors()[0]["loc"][1:]))
        except (RedactedError, IndexError):
            field = Label("body")
        return _problem(request, MalformedRequestError(field=field))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return _problem(request, PeerRefused("METHOD_NOT_ALLOWED", Status.INVALID_ARGUMENT))
        return _problem(request, NotFoundError() if error.status_code == 404 else MalformedRequestError())

    @app.exception_handler(Exception)
    async def on_unforeseen(request: Request, error: Exception) -> Response:
        get_log().error("incident", error=error)
        return _problem(request, IncidentError())

    return app


def _problem(request: Request, error: DomainError) -> Response:
    if request.url.path.startswith(("/connect/", "/oauth/")):
        # A person in a browser, not a program.
        _, problem = problem_of(error)
        return connect.page(problem.title, problem.detail, status=problem.http)
    status, document, retry_after = problem_document(error, request.state.request_id)
    headers = {"retry-after": str(retry_after)} if retry_after else {}
    return Response(document, status_code=status, media_type="application/problem+json", headers=headers)
