"""Door out: other services, in edge's own words; a file for each of them."""

from authpipe_gateway_edge.peers.audit import AuditPeer
from authpipe_gateway_edge.peers.authority import AuthorityPeer
from authpipe_gateway_edge.peers.containment import ContainmentPeer
from authpipe_gateway_edge.peers.coordinator import CoordinatorPeer
from authpipe_gateway_edge.peers.incidents import IncidentsPeer
from authpipe_gateway_edge.peers.members import MembersPeer, SignInPeer
from authpipe_gateway_edge.peers.stores import MaskedPeer
from authpipe_gateway_edge.peers.worker import WorkerPeer

__all__ = [
    "AuditPeer",
    "AuthorityPeer",
    "ContainmentPeer",
    "CoordinatorPeer",
    "IncidentsPeer",
    "MaskedPeer",
    "MembersPeer",
    "SignInPeer",
    "WorkerPeer",
]
