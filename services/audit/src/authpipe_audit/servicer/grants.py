"""Whose log a grant lets edge read."""

from __future__ import annotations

from collections.abc import Callable

from authpipe_grants import Grant, GrantError
from authpipe_rpc import current_caller


def workspace_reader(verify: Callable[[str], Grant], audience: str) -> Callable[[str], str]:
    """Makes what gives the workspace of a grant to read its log, and refuses any other.

    Args:
        verify: Verifies grants.
        audience: What a grant must name to read here.
    """

    def workspace_of(token: str) -> str:
        grant = verify(token)
        wrong_place = audience not in grant.audience or grant.consumer != current_caller()
        if grant.purpose != "manage.read_audit" or grant.issuer != "gateway/authority" or wrong_place:
            raise GrantError
        return grant.workspace

    return workspace_of
