"""The public gRPC listener: TLS 1.3 alone, short messages, and nothing that can be printed."""

from __future__ import annotations

from pathlib import Path

import grpc

from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_gateway_edge.servicer.containment import ContainmentServicer
from authpipe_gateway_edge.servicer.gateway import GatewayServicer
from authpipe_rpc import ServerConfig, server_credentials
from authpipe_sensitive import guard_services

_LONGEST_MESSAGE = 64 * 1024


def grpc_server(
    servicer: GatewayServicer, containment: ContainmentServicer, listen: ServerConfig, certificate: Path, key: Path
) -> grpc.aio.Server:
    """Makes the listener. What it takes and gives cannot be printed from then on.

    Args:
        servicer: What answers of connections and all that belongs to them.
        containment: What answers of incidents, freezes and rotations.
        listen: Where.
        certificate: PEM of the public chain.
        key: Its key, PKCS #8.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
            ("grpc.max_connection_age_ms", int(listen.connection_age_seconds * 1000)),
        ]
    )
    guard_services(gateway_pb2.DESCRIPTOR.services_by_name.values())
    gateway_pb2_grpc.add_GatewayServicer_to_server(servicer, server)  # type: ignore[arg-type]  # its methods are coroutines
    gateway_pb2_grpc.add_ContainmentServicer_to_server(containment, server)  # type: ignore[arg-type]  # likewise
    server.add_secure_port(f"{listen.host}:{listen.port}", server_credentials(key, certificate))
    return server
