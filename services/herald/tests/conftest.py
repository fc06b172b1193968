"""Real servers that listen: HTTPS for webhooks, SMTP for mail, each over TLS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from authpipe_testing.ca import CertificateAuthority
from authpipe_testing.ports import free_ports


class Certificates:
    """A CA, and a server's certificate of it."""

    def __init__(self, folder: Path) -> None:
        self._ca = CertificateAuthority(folder, "ca")
        self.ca = self._ca.certificate_file
        self._ca.issue(folder, "server", common_name="localhost", dns=("localhost",), addresses=("127.0.0.1",))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.load_cert_chain(folder / "server.pem", folder / "server.key")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA, and a server's certificate of it."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


class WebServer:
    """Takes what is posted.

    Attributes:
        got: Path, headers and body of each.
        answers: The status of the next answers; then 204.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(outer.answers.pop(0) if outer.answers else 204)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/alarms"

    def close(self) -> None:
        """Stops."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def web(certificates: Certificates) -> Iterator[WebServer]:
    """Takes what is posted."""
    server = WebServer(certificates.context)
    yield server
    server.close()


class Mailbox:
    """Takes mail; whoever logs in has to know the password."""

    def __init__(self, *, starttls: bool) -> None:
        self.got: list[Any] = []
        self.refuses = False
        self._starttls = starttls

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        """Takes a message, over TLS alone."""
        if self.refuses or (self._starttls and session.ssl is None):
            return "451 not now"
        self.got.append(envelope)
        return "250 OK"


def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"herald", b"of a mailbox")
    return AuthResult(success=good)


@pytest.fixture(params=["implicit", "starttls"])
def mail(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[tuple[Mailbox, int, bool]]:
    """A mailbox, its port, and whether TLS begins with the first byte."""
    implicit = request.param == "implicit"
    box = Mailbox(starttls=not implicit)
    more: dict[str, Any] = (
        {"ssl_context": certificates.context}
        if implicit
        else {"require_starttls": True, "tls_context": certificates.context}
    )
    port = free_ports(1)[0]
    controller = Controller(
        box, hostname="127.0.0.1", port=port, authenticator=authenticate, auth_required=True,
        auth_require_tls=not implicit, **more,
    )  # fmt: skip
    controller.start()
    yield box, port, implicit
    controller.stop()
