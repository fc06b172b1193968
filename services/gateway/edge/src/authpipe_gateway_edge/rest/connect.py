"""The hosted page and the callback: what a browser meets. No script, nothing from elsewhere, no secret in an address.

Every form has the Origin checked and a token bound to the browser's cookie (promise P16). The callback answers with a
redirect at once, so that the code does not stay in the address bar or go out as a referrer.
"""

from __future__ import annotations

import html
import os
import secrets
from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from authpipe_gateway_edge.domain.browser import COOKIE, binding_of, csrf_token, is_own_form, new_binding
from authpipe_gateway_edge.domain.ports import Coordinator
from authpipe_gateway_edge.domain.words import Question
from authpipe_gateway_edge.errors import PROBLEMS, CrossOriginError, MalformedRequestError, problem_of
from authpipe_sensitive import DomainError, Label

_VALUE = "value_"
_MOST_VALUES = 20
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1b1f24;background:#f6f7f9;margin:0}
main{max-width:26rem;margin:12vh auto;background:#fff;border:1px solid #dde1e6;border-radius:12px;padding:2rem}
h1{font-size:1.25rem;margin:0 0 .5rem}p{margin:.25rem 0 1.25rem;color:#4b5563}
button{display:block;width:100%;padding:.75rem 1rem;margin:.5rem 0;font:inherit;text-align:left;cursor:pointer;
border:1px solid #c8ced6;border-radius:8px;background:#fff}button:hover{border-color:#1f5eff}
button:focus-visible{outline:3px solid #1f5eff;outline-offset:2px}
small{color:#6b7280}label{display:block;margin:.75rem 0}label small{display:block}
input,select{display:block;width:100%;box-sizing:border-box;padding:.5rem .6rem;margin:.25rem 0;font:inherit;
border:1px solid #c8ced6;border-radius:8px;background:transparent;color:inherit}
@media(prefers-color-scheme:dark){body{background:#111418;color:#e6e9ee}main{background:#1a1e24;border-color:#2c323b}
p,small{color:#a3abb8}button{background:#1a1e24;color:inherit;border-color:#3a424e}}
"""


def router(coordinator: Coordinator, public_url: str) -> APIRouter:
    """Makes the routes that browsers use."""
    routes = APIRouter(include_in_schema=False)
    callback = f"{public_url}/oauth/callback"

    # These two stand before /connect/{session}: a session has 43 characters and never these names.
    @routes.get("/connect/done")
    async def done() -> Response:
        return page("Connected", "The account is connected. You can close this window.", "")

    @routes.get("/connect/failed")
    async def failed(reason: str = "") -> Response:
        problem = PROBLEMS.get(reason, PROBLEMS["INTERNAL"])
        return page(problem.title, problem.detail, "", status=problem.http)

    @routes.get("/connect/{session}")
    async def choose(request: Request, session: str) -> Response:
        choices = await coordinator.choices(session)
        cookie = request.cookies.get(COOKIE, "")
        if not binding_of(cookie):
            cookie = new_binding(os.urandom(32))
        token = csrf_token(binding_of(cookie), session)
        forms = "".join(
            f'<form method="post" action="/connect/{html.escape(session)}">'
            f'<input type="hidden" name="csrf" value="{token}">'
            f"{''.join(map(_field, each.questions))}"
            f'<button name="provider_config_id" value="{html.escape(each.provider_config_id)}">'
            f"{html.escape(each.display_name)}<br><small>{html.escape(each.origin)}</small></button></form>"
            for each in choices
        )
        text = "Choose what to connect. You will be asked there to agree."
        if not choices:
            text = "Nothing is configured to connect to. Make a provider configuration first."
        origins = " ".join(sorted({_source(each.origin) for each in choices}))
        response = page("Connect an account", text, forms, form_action=f"'self' {origins}")
        response.set_cookie(COOKIE, cookie, max_age=600, path="/", secure=True, httponly=True, samesite="lax")
        return response

    @routes.post("/connect/{session}")
    async def begin(
        request: Request, session: str, provider_config_id: str = Form(""), csrf: str = Form("")
    ) -> Response:
        answered = _answers((await request.form()).multi_items())
        binding = binding_of(request.cookies.get(COOKIE, ""))
        if not is_own_form(binding, session, csrf, request.headers.get("origin", ""), public_url):
            raise CrossOriginError
        url = await coordinator.begin(
            session, provider_config_id, binding, callback, request.state.request_id, answered
        )
        return RedirectResponse(url, status_code=303)

    @routes.get("/oauth/callback")
    async def complete(request: Request) -> Response:
        query = _single(request.query_params.multi_items())
        binding = binding_of(request.cookies.get(COOKIE, ""))
        try:
            # With OAuth 1.0a a verifier comes back, with the token that it is of (RFC 5849, section 2.2).
            code = query.get("code") or query.get("oauth_verifier", "")
            await coordinator.complete(
                query.get("state", ""),
                binding,
                code,
                query.get("iss", ""),
                query.get("oauth_token", ""),
                denied="error" in query or "denied" in query or not code,
                request_id=request.state.request_id,
            )
        except DomainError as error:
            reason, _ = problem_of(error)
            response = RedirectResponse(f"/connect/failed?reason={reason}", status_code=303)
        else:
            response = RedirectResponse("/connect/done", status_code=303)
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return response

    return routes


def _source(origin: str) -> str:
    """Gives where a form may lead, for the policy: a placeholder, which is one label or more, is a wildcard there."""
    scheme, _, host = origin.partition("://")
    if "{" not in host:
        return origin
    return f"{scheme}://*.{host.rpartition('}')[2].lstrip('.')}" if host.rpartition("}")[2] else f"{scheme}:"


def _field(question: Question) -> str:
    """Gives the field of a question; the browser asks for an answer, coordinator checks it."""
    name, label = html.escape(f"{_VALUE}{question.name}"), html.escape(question.title)
    hint = f"<small>{html.escape(question.description)}</small>" if question.description else ""
    if question.one_of:
        options = "".join(f"<option>{html.escape(each)}</option>" for each in question.one_of)
        return f'<label>{label}<select name="{name}" required>{options}</select>{hint}</label>'
    example = html.escape(question.example)
    return f'<label>{label}<input name="{name}" placeholder="{example}" maxlength="100" required>{hint}</label>'


def _answers(items: Sequence[tuple[str, object]]) -> tuple[tuple[str, str], ...]:
    found = [(name.removeprefix(_VALUE), str(value).strip()) for name, value in items if name.startswith(_VALUE)]
    if len(dict(found)) != len(found) or len(found) > _MOST_VALUES:
        raise MalformedRequestError(field=Label("values"))
    return tuple(found)


def _single(items: list[tuple[str, str]]) -> Mapping[str, str]:
    """Gives parameters that each stand once (RFC 6749, section 3.1).

    Raises:
        MalformedRequestError: One stands twice.
    """
    found = dict(items)
    if len(found) != len(items) or any(len(value) > 4096 for value in found.values()):
        raise MalformedRequestError(field=Label("query"))
    return found


def page(title: str, text: str, body: str = "", *, status: int = 200, form_action: str = "'none'") -> HTMLResponse:
    """Gives a page: no script, nothing from elsewhere."""
    nonce = secrets.token_urlsafe(12)
    document = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style nonce="{nonce}">{_STYLE}</style></head>'
        f"<body><main><h1>{html.escape(title)}</h1><p>{html.escape(text)}</p>{body}</main></body></html>"
    )
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action {form_action}; frame-ancestors 'none';"
        " base-uri 'none'"
    )
    headers = {
        "content-security-policy": policy,
        # Not "no-referrer": a browser would then send `Origin: null` with our own form (seen with Chromium).
        "referrer-policy": "same-origin",
        "cache-control": "no-store",
        "x-frame-options": "DENY",
    }
    return HTMLResponse(document, status_code=status, headers=headers)
