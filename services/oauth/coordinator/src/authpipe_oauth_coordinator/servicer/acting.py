"""On whose behalf a call is: from a grant that authority signed for this act, for whoever calls."""

from __future__ import annotations

from collections.abc import Callable

from authpipe_grants import Grant, GrantError
from authpipe_oauth_coordinator.domain.words import Acting
from authpipe_rpc import current_caller


class ActingOf:
    """Says on whose behalf.

    Args:
        verify: Verifies grants.
        audience: What a grant must name to act here.
    """

    def __init__(self, verify: Callable[[str], Grant], audience: str) -> None:
        self._verify = verify
        self._audience = audience

    def __call__(self, token: str, request_id: str, act: str, target: str = "") -> Acting:
        """Says on whose behalf.

        Raises:
            GrantError: The grant is not for this act, this target or this caller.
        """
        grant = self._verify(token)
        signed_here = grant.issuer == "gateway/authority" and self._audience in grant.audience
        if not signed_here or grant.purpose != f"manage.{act}" or grant.consumer != current_caller():
            raise GrantError
        if target and target not in grant.connections:
            raise GrantError
        return Acting(grant.workspace, grant.actor, request_id, grant.source)
