"""The public gRPC door: the same operations and errors as REST, by the same domain."""

from authpipe_gateway_edge.servicer.containment import ContainmentServicer
from authpipe_gateway_edge.servicer.gateway import GatewayServicer
from authpipe_gateway_edge.servicer.listening import grpc_server

__all__ = ["ContainmentServicer", "GatewayServicer", "grpc_server"]
