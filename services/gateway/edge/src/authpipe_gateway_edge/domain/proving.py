"""Proofs of the key that a token is bound to (RFC 9449), for whoever uses the token that is served: the worker makes them.

The key stays where it is. A proof is good for one request, with that very token.
"""

from __future__ import annotations

from authpipe_gateway_edge.domain.ports import Act, Authority, Coordinator, ProvingWorker
from authpipe_gateway_edge.domain.words import Caller, Provable, require_id
from authpipe_sensitive import DomainError, Secret

_KEY_CHANGED = "CONSUMER_KEY_CHANGED"
_ATTEMPTS = 3


class Proving:
    """Has proofs made.

    Args:
        authority: May I?
        coordinator: Knows the Provider.
        worker: Makes them.
    """

    def __init__(self, authority: Authority, coordinator: Coordinator, worker: ProvingWorker) -> None:
        self._authority = authority
        self._coordinator = coordinator
        self._worker = worker

    async def prove(self, caller: Caller, connection: str, wanted: Provable) -> Secret:
        """Has the proof for one request made.

        Raises:
            DomainError: Refused; the reason says why.
        """
        anew = False
        for attempt in range(1, _ATTEMPTS + 1):
            thumbprint = await self._worker.thumbprint(anew=anew)
            verdict = await self._authority.authorize(
                caller, Act.PROXY, require_id(connection), worker_thumbprint=thumbprint
            )
            route = await self._coordinator.proxy_route(verdict, connection, thumbprint)
            try:
                return await self._worker.prove_key(route, verdict, connection, wanted, caller.request_id, thumbprint)
            except DomainError as error:
                anew = error.reason == _KEY_CHANGED
                if not anew or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("The last attempt returns or raises.")
