"""Door out: the services, in an operator's own words; a file for each of them."""

from authpipe_admin.peers.audit import Evidence, Incident, IncidentsPeer, LogPeer, StorePeer
from authpipe_admin.peers.authority import AuthorityPeer, Invitation, Member, MembersPeer
from authpipe_admin.peers.coordinator import ContainmentPeer, CoordinatorPeer, Rotation
from authpipe_admin.peers.keyservice import KeyAdministrationPeer

__all__ = [
    "AuthorityPeer",
    "ContainmentPeer",
    "CoordinatorPeer",
    "Evidence",
    "Incident",
    "IncidentsPeer",
    "Invitation",
    "KeyAdministrationPeer",
    "LogPeer",
    "Member",
    "MembersPeer",
    "Rotation",
    "StorePeer",
]
