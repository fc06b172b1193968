"""moto's KMS and STS over HTTPS, made to keep what a real KMS keeps: a key's state, and a grant that can be taken away.

Run as a process: `python aws_server.py SETTINGS.json`. moto checks the encryption context itself; a disabled or deleted
key still decrypts there, which is mended here, at its backend. `hang` and `throttle` are switched by a POST to /test.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from flask import Flask, request
from moto.core.exceptions import JsonRESTError
from moto.kms.models import KmsBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sts.models import STSBackend
from werkzeug.serving import make_server

SWITCHES: dict[str, Any] = {"denied": False, "throttle": False, "hang": 0.0, "nonsense": False, "error": False}


class Refusal(JsonRESTError):
    code = 400

    def __init__(self, kind: str) -> None:
        super().__init__(kind, kind)


def guarded(name: str) -> None:
    """Makes an act of the backend look at the key's state and at the switches first."""
    act = getattr(KmsBackend, name)

    def look(self: KmsBackend, *arguments: Any, **named: Any) -> Any:
        if SWITCHES["hang"]:
            time.sleep(SWITCHES["hang"])
        for switch, kind in (("denied", "AccessDeniedException"), ("throttle", "ThrottlingException")):
            if SWITCHES[switch]:
                raise Refusal(kind)
        if SWITCHES["error"]:
            raise RuntimeError
        states = {key.key_state for key in self.keys.values()}
        if "Disabled" in states:
            raise Refusal("DisabledException")
        if "PendingDeletion" in states:
            raise Refusal("KMSInvalidStateException")
        answer = act(self, *arguments, **named)
        if SWITCHES["nonsense"] and name == "decrypt":
            return (b"nonsense", *answer[1:])
        return answer

    setattr(KmsBackend, name, look)


def with_external_id(wanted: str) -> None:
    """Makes roles ask for their external id, as the customer's trust policy does."""
    act = STSBackend.assume_role

    def assume(self: STSBackend, *arguments: Any, **named: Any) -> Any:
        if named.get("external_id") != wanted:
            raise Refusal("AccessDenied")
        return act(self, *arguments, **named)

    STSBackend.assume_role = assume  # type: ignore[method-assign]


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    with_external_id(settings["external_id"])
    for name in ("encrypt", "decrypt"):
        guarded(name)
    switches = Flask("switches")

    @switches.post("/test")
    def switch() -> dict[str, Any]:
        SWITCHES.update(request.get_json())
        return SWITCHES

    aws = DomainDispatcherApplication(create_backend_app)

    def application(environment: Any, start: Any) -> Any:
        return (switches if environment["PATH_INFO"] == "/test" else aws)(environment, start)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(settings["certificate"], settings["key"])
    make_server("127.0.0.1", settings["port"], application, threaded=True, ssl_context=context).serve_forever()


if __name__ == "__main__":
    main()
