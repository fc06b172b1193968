"""What customers send to edge by gRPC, and what they are given, cannot be printed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from authpipe_rpc import ServerConfig
from authpipe.gateway.v1 import gateway_pb2
from authpipe_gateway_edge.servicer import grpc_server
from authpipe_testing.ca import CertificateAuthority


class Servicer:
    """Answers nothing."""

    def __getattr__(self, _: str) -> None:
        return None


def shown() -> str:
    """Shows two messages with a secret in them in every way."""
    value = gateway_pb2.SecretValue(value="A-SECRET")
    request = gateway_pb2.AddClientSecretRequest(client_secret="A-SECRET")
    return " ".join(f"{each} {each!s} {each!r}" for each in (value, request))


@pytest.mark.promise("P07")
async def test_what_customers_send_and_are_given_cannot_be_printed(tmp_path: Path) -> None:
    leaf = CertificateAuthority(tmp_path, "ca").issue(tmp_path, "leaf", common_name="localhost")
    servicer: Any = Servicer()
    assert "A-SECRET" in shown(), "it is guarded by nothing else"
    server = grpc_server(servicer, servicer, ServerConfig(host="127.0.0.1", port=0), leaf.certificate, leaf.key)
    assert "A-SECRET" not in shown()
    await server.stop(0)
