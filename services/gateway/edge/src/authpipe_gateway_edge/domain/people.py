"""Members of a workspace, and how they come in."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from authpipe_sensitive import Secret


class Member(NamedTuple):
    """Somebody of a workspace.

    Args:
        id: The id, mem_….
        email: An address.
        role: auditor, developer, admin or owner.
        state: invited or active.
    """

    id: str
    email: str
    role: str
    state: str


class Members(NamedTuple):
    """The members of a workspace.

    Args:
        members: Who is invited or active.
        workspace: The workspace's name.
        own_id: Who asks; empty: no member.
    """

    members: list[Member]
    workspace: str
    own_id: str


class Invitation(NamedTuple):
    """An invitation, shown once.

    Args:
        member_id: The member to be.
        url: The page at which one joins, with what one joins by behind its `#`.
        expires_at: Until when.
    """

    member_id: str
    url: Secret
    expires_at: datetime


class Session(NamedTuple):
    """A session of the dashboard.

    Args:
        token: What the browser keeps in its cookie.
        expires_at: When it ends.
    """

    token: Secret
    expires_at: datetime
