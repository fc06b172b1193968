"""The playground Provider: a real OAuth authorization server (Authlib) to connect to without an account anywhere.

PKCE is required, refresh tokens rotate and a reused one ends its family (RFC 9700, section 4.14), tokens are revoked
(RFC 7009), answers carry `iss` (RFC 9207). Accounts and clients are whatever is typed: it is for development alone.
"""

from __future__ import annotations

import json
import logging
import secrets
import ssl
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import flask
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import (
    AuthorizationCodeMixin,
    ClientMixin,
    InvalidGrantError,
    TokenMixin,
    grants,
)
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from werkzeug.serving import make_server

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Playground Provider</title>
<style>body{font:16px/1.5 system-ui;margin:12vh auto;max-width:26rem}button,input{font:inherit;padding:.6rem 1rem}</style>
<h1>Playground Provider</h1><p><b>{{ client }}</b> asks for: {{ scope or "basic access" }}</p>
<form method="post"><label>Account <input name="account" value="ada"></label>
<p><button name="answer" value="allow">Allow</button> <button name="answer" value="deny">Deny</button></p></form></html>"""


@dataclass
class _Client(ClientMixin):  # type: ignore[misc]  # authlib is untyped
    client_id: str

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return ""

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return bool(redirect_uri)

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret != "wrong"  # one secret that is refused, to see what that looks like

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in {"client_secret_basic", "client_secret_post"}

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in {"authorization_code", "refresh_token"}


@dataclass
class _Code(AuthorizationCodeMixin):  # type: ignore[misc]
    code: str
    client_id: str
    redirect_uri: str
    scope: str
    account: str
    code_challenge: str
    code_challenge_method: str
    ends: float

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class _Token(TokenMixin):  # type: ignore[misc]
    access_token: str
    refresh_token: str
    client_id: str
    scope: str
    account: str
    family: str
    ends: float
    used: bool = False
    revoked: bool = False

    def check_client(self, client: _Client) -> bool:
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return int(self.ends - time.time())

    def is_expired(self) -> bool:
        return time.time() > self.ends

    def is_revoked(self) -> bool:
        return self.revoked


@dataclass
class _State:
    codes: dict[str, _Code] = field(default_factory=dict)
    tokens: list[_Token] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    life_seconds: int = 3600

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def end_family(self, family: str) -> None:
        for token in self.tokens:
            if token.family == family:
                token.revoked = True


def make_app(issuer: str, life_seconds: int) -> flask.Flask:
    """Makes the Provider.

    Args:
        issuer: Its issuer URL.
        life_seconds: How long its access tokens live.
    """
    app = flask.Flask(__name__)
    state = _State(life_seconds=life_seconds)
    server = AuthorizationServer(
        app, query_client=_Client, save_token=lambda token, request: _save(state, token, request)
    )
    server.register_token_generator("default", lambda *args, **kwargs: _generate(state, *args, **kwargs))
    server.register_grant(_code_grant(state), [CodeChallenge(required=True)])
    server.register_grant(_refresh_grant(state))
    server.register_endpoint(_revocation(state))

    @app.get("/.well-known/openid-configuration")
    def metadata() -> Any:
        return {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "revocation_endpoint": f"{issuer}/revoke",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "authorization_response_iss_parameter_supported": True,
        }

    @app.route("/authorize", methods=["GET", "POST"])
    def authorize() -> Any:
        try:
            grant = server.get_consent_grant(end_user="?")
        except OAuth2Error as error:
            return server.handle_error_response(None, error)
        if flask.request.method == "GET":
            payload = grant.request.payload
            return flask.render_template_string(_PAGE, client=payload.client_id, scope=payload.scope)
        user = flask.request.form.get("account", "") if flask.request.form.get("answer") == "allow" else None
        response = server.create_authorization_response(grant_user=user, grant=grant)
        location = response.headers.get("Location", "")
        if location:
            joint = "&" if "?" in location else "?"
            response.headers["Location"] = location + joint + urlencode({"iss": issuer})
        return response

    @app.post("/token")
    def token() -> Any:
        state.count(flask.request.form.get("grant_type", ""))
        return server.create_token_response()

    @app.post("/revoke")
    def revoke() -> Any:
        state.count("revoke")
        return server.create_endpoint_response("revocation")

    @app.get("/playground/counts")
    def counts() -> Any:
        living = sum(not token.revoked and not token.is_expired() for token in state.tokens)
        return {**state.counts, "living": living}

    @app.post("/playground/life")
    def life() -> Any:
        state.life_seconds = int(flask.request.form["seconds"])
        return {"life_seconds": state.life_seconds}

    @app.post("/playground/end")
    def end() -> Any:
        for found in state.tokens:
            if found.access_token == flask.request.form["access_token"]:
                state.end_family(found.family)
                return {"ended": True}
        return {"ended": False}, 404

    @app.post("/playground/alarms")
    def alarm() -> Any:
        state.alarms.append({"headers": dict(flask.request.headers), "body": flask.request.get_data(as_text=True)})
        return {}, 204

    @app.get("/playground/alarms")
    def alarms() -> Any:
        return flask.jsonify(state.alarms)

    @app.get("/me")
    def me() -> Any:
        given = flask.request.headers.get("authorization", "").removeprefix("Bearer ")
        for found in state.tokens:
            if found.access_token == given and not found.revoked and not found.is_expired():
                return {"account": found.account}
        return {"error": "invalid_token"}, 401

    return app


def _generate(state: _State, *_: Any, **kwargs: Any) -> dict[str, Any]:
    token = {
        "token_type": "Bearer",
        "access_token": f"pgat_{secrets.token_urlsafe(32)}",
        "expires_in": state.life_seconds,
        "refresh_token": f"pgrt_{secrets.token_urlsafe(32)}",
    }
    if kwargs.get("scope"):
        token["scope"] = kwargs["scope"]
    return token


def _save(state: _State, token: dict[str, Any], request: Any) -> None:
    old = request.refresh_token if isinstance(request.refresh_token, _Token) else None
    state.tokens.append(
        _Token(
            token["access_token"],
            token["refresh_token"],
            request.client.client_id,
            token.get("scope", ""),
            str(request.user),
            old.family if old else secrets.token_hex(8),
            time.time() + token["expires_in"],
        )
    )


def _code_grant(state: _State) -> type:
    class CodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

        def save_authorization_code(self, code: str, request: Any) -> None:
            data = request.payload.data
            state.codes[code] = _Code(
                code,
                request.client.client_id,
                request.payload.redirect_uri,
                request.payload.scope or "",
                str(request.user),
                data.get("code_challenge", ""),
                data.get("code_challenge_method", ""),
                time.time() + 60,
            )

        def query_authorization_code(self, code: str, client: _Client) -> _Code | None:
            found = state.codes.get(code)
            return found if found and found.client_id == client.client_id and time.time() < found.ends else None

        def delete_authorization_code(self, authorization_code: _Code) -> None:
            state.codes.pop(authorization_code.code, None)

        def authenticate_user(self, authorization_code: _Code) -> str:
            return authorization_code.account

    return CodeGrant


def _refresh_grant(state: _State) -> type:
    class RefreshGrant(grants.RefreshTokenGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token: str) -> _Token:
            for token in state.tokens:
                if token.refresh_token == refresh_token and not token.revoked:
                    if token.used:
                        state.count("reuse")
                        state.end_family(token.family)
                        break
                    return token
            raise InvalidGrantError

        def authenticate_user(self, refresh_token: _Token) -> str:
            return refresh_token.account

        def revoke_old_credential(self, refresh_token: _Token) -> None:
            refresh_token.used = True

    return RefreshGrant


def _revocation(state: _State) -> type:
    class Revocation(RevocationEndpoint):  # type: ignore[misc]
        def query_token(self, token_string: str, _: str | None) -> _Token | None:
            for token in state.tokens:
                if token_string in {token.access_token, token.refresh_token}:
                    return token
            return None

        def revoke_token(self, token: _Token, _: Any) -> None:
            state.end_family(token.family)

    return Revocation


def main() -> None:
    """Serves the playground with the settings of a file: port, issuer, certificate, key, life_seconds."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(settings["certificate"], settings["key"])
    # Its request lines have codes and states in their addresses.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = make_app(settings["issuer"], settings["life_seconds"])
    make_server("127.0.0.1", settings["port"], app, threaded=True, ssl_context=context).serve_forever()


if __name__ == "__main__":
    main()
