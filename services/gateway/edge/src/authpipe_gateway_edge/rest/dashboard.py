"""The dashboard: a page, its script and its style, all from here; and how a browser signs in to it and out.

A session is a cookie that no script reads and no other site sends. It is believed only from our own page: the browser says
so in `Sec-Fetch-Site`, which no script can set (W3C Fetch Metadata), and the cookie is SameSite=Strict besides.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from authpipe_gateway_edge.domain.ports import SignIn
from authpipe_gateway_edge.domain.people import Session
from authpipe_gateway_edge.rest.api import SESSION_COOKIE, Api, require_own_page, session_of
from authpipe_sensitive import Secret

_FILES = resources.files("authpipe_gateway_edge.rest") / "dashboard_files"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none';"
    " frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "publickey-credentials-get=(self), publickey-credentials-create=(self)",
}
_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}


class JoiningIn(BaseModel):
    """An invitation."""

    model_config = ConfigDict(extra="forbid")

    invitation: SecretStr = Field(max_length=200)


class NewPasskeyIn(JoiningIn):
    """A new passkey: RegistrationResponseJSON."""

    credential: dict[str, Any]


class PasskeyIn(BaseModel):
    """What a passkey has signed: AuthenticationResponseJSON."""

    model_config = ConfigDict(extra="forbid")

    credential: dict[str, Any]


def router(api: Api, sign_in: SignIn) -> APIRouter:
    """Makes the routes of /dashboard."""
    routes = APIRouter(prefix="/dashboard", include_in_schema=False)
    files = {name: (_FILES / name).read_bytes() for name in ("index.html", "app.js", "views.js", "style.css")}

    def shown(name: str) -> Response:
        return Response(files[name], media_type=_TYPES[name.rpartition(".")[2]], headers=_HEADERS)

    @routes.get("")
    async def index() -> Response:
        return shown("index.html")

    @routes.get("/join")
    async def join() -> Response:
        return shown("index.html")

    @routes.get("/app.js")
    async def script() -> Response:
        return shown("app.js")

    @routes.get("/views.js")
    async def views() -> Response:
        return shown("views.js")

    @routes.get("/style.css")
    async def style() -> Response:
        return shown("style.css")

    @routes.post("/joining:begin")
    async def begin_joining(request: Request, body: JoiningIn) -> Response:
        require_own_page(request)
        state = request.state
        return _options(await sign_in.begin_joining(_secret(body.invitation), state.request_id, state.source))

    @routes.post("/joining:finish")
    async def finish_joining(request: Request, body: NewPasskeyIn) -> Response:
        require_own_page(request)
        state = request.state
        session = await sign_in.finish_joining(
            _secret(body.invitation), json.dumps(body.credential), state.request_id, state.source
        )
        return _signed_in(session)

    @routes.post("/sign-in:begin")
    async def begin_sign_in(request: Request) -> Response:
        require_own_page(request)
        return _options(await sign_in.begin_sign_in())

    @routes.post("/sign-in:finish")
    async def finish_sign_in(request: Request, body: PasskeyIn) -> Response:
        require_own_page(request)
        state = request.state
        return _signed_in(await sign_in.finish_sign_in(json.dumps(body.credential), state.request_id, state.source))

    @routes.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        require_own_page(request)
        if (session := session_of(request)) is not None:
            await api.membering.sign_out(session, request.state.request_id, request.state.source)
        response = Response(status_code=204, headers={"clear-site-data": '"cache", "cookies", "storage"'})
        response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        return response

    return routes


def _secret(value: SecretStr) -> Secret:
    return Secret(value.get_secret_value().encode())


def _options(document: str) -> Response:
    return Response(document, media_type="application/json", headers={"cache-control": "no-store"})


def _signed_in(session: Session) -> Response:
    response = Response(status_code=204, headers={"cache-control": "no-store"})
    with session.token:
        response.set_cookie(
            SESSION_COOKIE,
            session.token.expose().decode(),
            expires=session.expires_at,
            path="/",
            secure=True,
            httponly=True,
            samesite="strict",
        )
    return response
