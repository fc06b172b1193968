"""What did not open at a consumer: put on record here, for the consumer has no database (case 1)."""

from __future__ import annotations

from collections.abc import Callable

from authpipe_gateway_authority.domain.authorizing import Store
from authpipe_grants import Grant, GrantError
from authpipe_sensitive import AuditEntry

_SELF = "gateway/authority"


class Violations:
    """The rules over reports.

    Args:
        store: authority's own tables.
        verify: Verifies a grant's signature, chain and time.
    """

    def __init__(self, store: Store, verify: Callable[[str], Grant]) -> None:
        self._store = store
        self._verify = verify

    async def report(self, caller: str, token: str, request_id: str) -> None:
        """Puts a violation on record, in the words of the grant: a consumer that was taken over invents none.

        Raises:
            GrantError: The grant is not one of ours, or not for this consumer, or names no connection.
        """
        grant = self._verify(token)
        if grant.issuer != _SELF or grant.consumer != caller or len(grant.connections) != 1:
            raise GrantError
        entry = AuditEntry(
            name="INTEGRITY_VIOLATION",
            outcome="REFUSED",
            actor=grant.actor,
            request_id=request_id,
            workspace_id=grant.workspace,
            target=grant.connections[0],
            purpose=grant.purpose,
            reason="RECORD_INTEGRITY_VIOLATION",
            grant_id=grant.grant_id,
            source=grant.source,
        )
        await self._store.note([entry])
