"""An OAuth 1.0a Provider (RFC 5849) over TLS 1.3: oauthlib's server, which shares no code with the client that it looks at.

Temporary credentials are used once, a verifier belongs to one of them, no nonce is taken twice, and its API wants every request
signed. Accounts are whatever comes.
"""

from __future__ import annotations

import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import flask
from oauthlib.oauth1 import RequestValidator, WebApplicationServer
from werkzeug.serving import make_server

from authpipe_testing.ports import free_ports

CONSUMER = "consumer-of-the-test"


@dataclass
class Known:
    """What the Provider knows.

    Args:
        consumer_secret: Of its one client.
        temporary: Temporary credentials: token to secret, callback and verifier.
        tokens: Token credentials: token to secret.
        nonces: What was seen.
    """

    consumer_secret: str
    temporary: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    nonces: set[tuple[str, ...]] = field(default_factory=set)


class _Validator(RequestValidator):  # type: ignore[misc]  # untyped
    enforce_ssl = True
    # What it computes with where there is nothing, so that the time it takes says nothing.
    dummy_client = dummy_request_token = dummy_access_token = "dummy"  # noqa: S105  # a word

    def __init__(self, known: Known) -> None:
        super().__init__()
        self.known = known

    @property
    def client_key_length(self) -> tuple[int, int]:
        return 5, 60

    request_token_length = access_token_length = verifier_length = nonce_length = client_key_length

    @property
    def safe_characters(self) -> set[str]:
        return {chr(each) for each in range(0x21, 0x7F)}

    def validate_client_key(self, client_key: str, _: Any) -> bool:
        return client_key == CONSUMER

    def get_client_secret(self, *_: Any) -> str:
        return self.known.consumer_secret

    def validate_timestamp_and_nonce(
        self, client_key: str, timestamp: str, nonce: str, _: Any, request_token: Any = None, access_token: Any = None
    ) -> bool:
        seen = (client_key, timestamp, nonce, str(request_token), str(access_token))
        fresh = seen not in self.known.nonces
        self.known.nonces.add(seen)
        return fresh

    def validate_requested_realms(self, *_: Any, **__: Any) -> bool:
        return True

    validate_realms = verify_realms = validate_requested_realms

    def get_default_realms(self, *_: Any) -> list[str]:
        return []

    get_realms = get_default_realms

    def validate_redirect_uri(self, _: str, redirect_uri: str, __: Any) -> bool:
        return redirect_uri.startswith("https://")

    def save_request_token(self, token: dict[str, str], request: Any) -> None:
        kept = {"secret": token["oauth_token_secret"], "callback": request.redirect_uri}
        self.known.temporary[token["oauth_token"]] = kept

    def verify_request_token(self, token: str, _: Any) -> bool:
        return token in self.known.temporary

    def get_redirect_uri(self, token: str, _: Any) -> str:
        return self.known.temporary[token]["callback"]

    def save_verifier(self, token: str, verifier: dict[str, str], _: Any) -> None:
        self.known.temporary[token]["verifier"] = verifier["oauth_verifier"]

    def validate_request_token(self, _: str, token: str, __: Any) -> bool:
        return token in self.known.temporary

    def get_request_token_secret(self, _: str, token: str, __: Any) -> str:
        return self.known.temporary.get(token, {"secret": "dummy"})["secret"]

    def validate_verifier(self, _: str, token: str, verifier: str, __: Any) -> bool:
        return self.known.temporary.get(token, {}).get("verifier") == verifier

    def save_access_token(self, token: dict[str, str], _: Any) -> None:
        self.known.tokens[token["oauth_token"]] = token["oauth_token_secret"]

    def invalidate_request_token(self, _: str, request_token: str, __: Any) -> None:
        self.known.temporary.pop(request_token, None)

    def validate_access_token(self, _: str, token: str, __: Any) -> bool:
        return token in self.known.tokens

    def get_access_token_secret(self, _: str, token: str, __: Any) -> str:
        return self.known.tokens.get(token, "dummy")


def _app(known: Known) -> flask.Flask:
    app = flask.Flask(__name__)
    server = WebApplicationServer(_Validator(known))

    def told() -> tuple[str, str, Any, dict[str, str]]:
        # oauthlib reads a body only of a form; elsewhere a signature is over none (RFC 5849, section 3.4.1.3.1).
        form = (
            flask.request.get_data(as_text=True)
            if flask.request.mimetype == "application/x-www-form-urlencoded"
            else ""
        )
        return flask.request.url, flask.request.method, form, dict(flask.request.headers)

    @app.post("/initiate")
    def initiate() -> Any:
        headers, body, status = server.create_request_token_response(*told())
        return flask.Response(body, status, headers)

    @app.route("/authorize", methods=["GET"])
    def authorize() -> Any:
        url, _, __, headers = told()
        headers, _, status = server.create_authorization_response(url, "POST", "", headers, realms=[])
        return flask.Response("", status, headers)

    @app.post("/token")
    def token() -> Any:
        headers, body, status = server.create_access_token_response(*told())
        if status == 200:
            body = f"{body}&{urlencode({'user_id': '42', 'screen_name': 'ada'})}"
        return flask.Response(body, status, headers)

    @app.route("/api/<path:path>", methods=["GET", "POST", "PUT"])
    def api(path: str) -> Any:
        valid, _ = server.validate_protected_resource_request(*told(), realms=[])
        body = flask.request.get_data()
        return {"path": path, "length": len(body), "form": flask.request.form.to_dict()}, 200 if valid else 401

    return app


@contextmanager
def run_oauth1_provider(certificate: Path, key: Path) -> Iterator[tuple[str, Known]]:
    """Runs the Provider; gives where it is, and what it knows."""
    known = Known(secrets.token_hex(24))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    port = free_ports(1)[0]
    running = make_server("127.0.0.1", port, _app(known), threaded=True, ssl_context=context)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{port}", known
    finally:
        running.shutdown()
        thread.join()
        running.server_close()
