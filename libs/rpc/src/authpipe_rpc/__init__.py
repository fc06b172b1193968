"""The only thing between our processes: gRPC over mutual TLS 1.3.

Chain of every call, outermost first: telemetry → identity → access → deadline → duty → errors → handler. Import this
before anything that imports grpc: it sets what grpc reads once (see `tls` and `core`).
"""

from authpipe_rpc import core, tls  # first: grpc reads its environment when it is imported
from authpipe_rpc.access import AccessError, MethodPolicy, policies_of
from authpipe_rpc.batching import Coalescer
from authpipe_rpc.channel import Peer
from authpipe_rpc.config import Files, PeerConfig, ServerConfig
from authpipe_rpc.errors import IncidentError, PeerRefused, PeerUnavailable, status_of
from authpipe_rpc.health import Health
from authpipe_rpc.identity import current_actor, current_caller, current_request_deadline, dns_name
from authpipe_rpc.probe import Probe
from authpipe_rpc.process import Background, run_process
from authpipe_rpc.rotation import server_credentials
from authpipe_rpc.server import RpcServer
from authpipe_rpc.standing import Requests

__all__ = [
    "AccessError",
    "Background",
    "Coalescer",
    "Files",
    "Health",
    "IncidentError",
    "MethodPolicy",
    "Peer",
    "PeerConfig",
    "PeerRefused",
    "PeerUnavailable",
    "Probe",
    "Requests",
    "RpcServer",
    "ServerConfig",
    "core",
    "current_actor",
    "current_caller",
    "current_request_deadline",
    "dns_name",
    "policies_of",
    "run_process",
    "server_credentials",
    "status_of",
    "tls",
]
