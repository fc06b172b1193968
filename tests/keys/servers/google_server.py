"""A double of Google Cloud KMS on the wire: its own protos, AES-256-GCM over the AAD, the errors that it gives.

Run as a process: `python google_server.py SETTINGS.json`. Written from the comments of Google's protos; no faithful
emulator was found (FACTS), so what the real one does beyond them is not shown by it. Switches are set over HTTPS.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from flask import Flask, jsonify, request
from google.cloud import kms_v1
from werkzeug.serving import make_server

SWITCHES: dict[str, Any] = {
    "disabled": False,
    "deleted": False,
    "denied": False,
    "throttle": False,
    "error": False,
    "nonsense": False,
    "hang": 0.0,
}
SERVICE = "google.cloud.kms.v1.KeyManagementService"


class Key:
    """One symmetric key."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._key = AESGCM(os.urandom(32))

    def look(self, name: str, context: grpc.ServicerContext, *, uses: bool) -> None:
        if SWITCHES["hang"]:
            time.sleep(SWITCHES["hang"])
        for switch, code in (
            ("throttle", grpc.StatusCode.RESOURCE_EXHAUSTED),
            ("error", grpc.StatusCode.INTERNAL),
            ("denied", grpc.StatusCode.PERMISSION_DENIED),
            ("deleted", grpc.StatusCode.NOT_FOUND),
        ):
            if SWITCHES[switch]:
                context.abort(code, switch)
        if name != self._name:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such key")
        if SWITCHES["disabled"] and uses:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the version is not enabled")

    def encrypt(self, asked: Any, context: grpc.ServicerContext) -> Any:
        self.look(asked.name, context, uses=True)
        nonce = os.urandom(12)
        sealed = self._key.encrypt(nonce, asked.plaintext, asked.additional_authenticated_data)
        return kms_v1.EncryptResponse.pb(kms_v1.EncryptResponse(name=self._name, ciphertext=nonce + sealed))

    def decrypt(self, asked: Any, context: grpc.ServicerContext) -> Any:
        self.look(asked.name, context, uses=True)
        try:
            opened = self._key.decrypt(
                asked.ciphertext[:12], asked.ciphertext[12:], asked.additional_authenticated_data
            )
        except (InvalidTag, ValueError):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "decryption failed")
        opened = b"nonsense" if SWITCHES["nonsense"] else opened
        return kms_v1.DecryptResponse.pb(kms_v1.DecryptResponse(plaintext=opened))

    def get(self, asked: Any, context: grpc.ServicerContext) -> Any:
        self.look(asked.name, context, uses=False)
        purpose = kms_v1.CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT
        return kms_v1.CryptoKey.pb(kms_v1.CryptoKey(name=self._name, purpose=purpose))


def handler(act: Any, kind: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        act,
        request_deserializer=kind.pb(kind()).FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    key = Key(settings["key_name"])
    server = grpc.server(ThreadPoolExecutor(8))
    handlers = {
        "Encrypt": handler(key.encrypt, kms_v1.EncryptRequest),
        "Decrypt": handler(key.decrypt, kms_v1.DecryptRequest),
        "GetCryptoKey": handler(key.get, kms_v1.GetCryptoKeyRequest),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    certificate, private = Path(settings["certificate"]).read_bytes(), Path(settings["key"]).read_bytes()
    server.add_secure_port(f"127.0.0.1:{settings['port']}", grpc.ssl_server_credentials([(private, certificate)]))
    server.start()
    app = Flask("switches")

    @app.post("/test")
    def switch() -> Any:
        SWITCHES.update(request.get_json())
        return jsonify(SWITCHES)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(settings["certificate"], settings["key"])
    make_server("127.0.0.1", settings["switch_port"], app, threaded=True, ssl_context=context).serve_forever()


if __name__ == "__main__":
    main()
