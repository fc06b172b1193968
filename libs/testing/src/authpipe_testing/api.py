"""A Provider's API on loopback that tells what it was sent."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Api(http.server.BaseHTTPRequestHandler):
    """A Provider's API that tells what it was sent."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        """Nothing: there are credentials in what it is sent."""

    def handle_any(self) -> None:
        seen = {"method": self.command, "path": self.path, "headers": [(n.lower(), v) for n, v in self.headers.items()]}
        self.server.seen.append(seen)
        body = self._body()
        if self.path.startswith("/api/digest"):
            self._answer(200, {"sha256": hashlib.sha256(body).hexdigest(), "length": len(body)})
        elif self.path.startswith("/api/stream/"):
            self.send_response(200)
            size = int(self.path.rsplit("/", 1)[1])
            self.send_header("content-length", str(size))
            self.end_headers()
            for _ in range(size // 65_536 if self.command != "HEAD" else 0):
                self.wfile.write(bytes(65_536))
        elif self.path.startswith("/api/breaks"):
            self.send_response(200)
            self.send_header("content-length", self.path.rpartition("/")[2])
            self.end_headers()
            self.wfile.write(b"half")
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.path.startswith("/api/unauthorized-once") and self.server.refuse:
            self.server.refuse -= 1
            self._answer(401, {"error": "no"})
        elif self.path.startswith("/api/redirect"):
            self.send_response(302)
            self.send_header("location", "https://169.254.169.254/latest/meta-data")
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            self._answer(200, {**seen, "body": body.decode("latin-1")})

    # The names that the library calls.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = handle_any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("content-length", "0")))

    def _answer(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("set-cookie", "session=of-the-provider")
        self.send_header("x-of-the-provider", "yes")
        self.send_header("connection", "x-between-neighbours")
        self.send_header("x-between-neighbours", "yes")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def running_api(certificate: Path, key: Path) -> Iterator[Any]:
    """Runs one; `url` is where it is, `seen` what it was sent, `refuse` how many requests it will refuse."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.seen, server.refuse = [], 0
    server.url = f"https://127.0.0.1:{server.server_address[1]}/api"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
