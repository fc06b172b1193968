"""A double of Azure Key Vault on the wire: the challenge, keys, RSA-OAEP-256, the errors a vault gives.

Run as a process: `python azure_server.py SETTINGS.json`. Written from Microsoft's REST reference for keys; no faithful
emulator was found (FACTS), so what a real vault does beyond this page is not shown by it.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
SWITCHES: dict[str, Any] = {
    "disabled": False,
    "deleted": False,
    "denied": False,
    "throttle": False,
    "error": False,
    "nonsense": False,
    "hang": 0.0,
}


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def unb64(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def application(settings: dict[str, Any]) -> Flask:  # noqa: C901  # a list of routes
    app = Flask("azure")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    base = f"https://localhost:{settings['port']}"
    kid = f"{base}/keys/{settings['name']}/{settings['version']}"

    def refusal(status: int, code: str) -> tuple[Response, int]:
        return jsonify({"error": {"code": code, "message": code}}), status

    @app.before_request
    def look() -> Any:
        if request.path == "/test":
            return None
        if "authorization" not in request.headers:
            answer = jsonify({"error": {"code": "Unauthorized", "message": "AKV10000"}})
            answer.status_code = 401
            answer.headers["WWW-Authenticate"] = (
                f'Bearer authorization="{base}/tenant", resource="https://vault.azure.net"'
            )
            return answer
        if SWITCHES["hang"]:
            time.sleep(SWITCHES["hang"])
        if SWITCHES["throttle"]:
            return refusal(429, "Throttled")
        if SWITCHES["error"]:
            return refusal(500, "InternalServerError")
        if SWITCHES["denied"] or request.headers["authorization"] != f"Bearer {settings['token']}":
            return refusal(403, "Forbidden")
        if SWITCHES["deleted"]:
            return refusal(404, "KeyNotFound")
        if SWITCHES["disabled"] and request.method == "POST":
            return refusal(403, "KeyDisabled")
        return None

    @app.post("/test")
    def switch() -> Any:
        SWITCHES.update(request.get_json())
        return jsonify(SWITCHES)

    @app.get(f"/keys/{settings['name']}/<version>")
    def get(version: str) -> Any:
        public = {"kid": kid, "kty": "RSA", "key_ops": ["encrypt", "decrypt"]}
        public |= {"n": b64(numbers.n.to_bytes(256, "big")), "e": b64(numbers.e.to_bytes(3, "big"))}
        return jsonify({"key": public, "attributes": {"enabled": not SWITCHES["disabled"]}})

    @app.post(f"/keys/{settings['name']}/<version>/<act>")
    def use(version: str, act: str) -> Any:
        body = request.get_json()
        if body["alg"] != "RSA-OAEP-256":
            return refusal(400, "BadParameter")
        value = unb64(body["value"])
        try:
            done = key.public_key().encrypt(value, OAEP) if act == "encrypt" else key.decrypt(value, OAEP)
        except ValueError:
            return refusal(400, "BadParameter")
        return jsonify({"kid": kid, "value": b64(b"nonsense" if SWITCHES["nonsense"] else done)})

    return app


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(settings["certificate"], settings["key"])
    make_server(
        "127.0.0.1", settings["port"], application(settings), threaded=True, ssl_context=context
    ).serve_forever()


if __name__ == "__main__":
    main()
