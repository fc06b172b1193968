"""Whether what came was sent by whoever has a connection's webhook secret: the worker compares, the secret is not handed out."""

from __future__ import annotations

from authpipe_gateway_edge.domain.ports import Act, Authority, Coordinator, WebhookWorker
from authpipe_gateway_edge.domain.words import Arrived, Caller, require_id
from authpipe_gateway_edge.errors import SchemeUnknownError
from authpipe_sensitive import DomainError

_KEY_CHANGED = "CONSUMER_KEY_CHANGED"
_ATTEMPTS = 3


class Webhooks:
    """Has signatures compared.

    Args:
        authority: May I?
        coordinator: Knows how a Provider signs.
        worker: Compares.
    """

    def __init__(self, authority: Authority, coordinator: Coordinator, worker: WebhookWorker) -> None:
        self._authority = authority
        self._coordinator = coordinator
        self._worker = worker

    async def verify(self, caller: Caller, connection: str, arrived: Arrived) -> str:
        """Says why what came is not believed; empty: it is.

        Raises:
            SchemeUnknownError: Nobody says how it is signed.
            DomainError: Refused; the reason says why.
        """
        anew = False
        for attempt in range(1, _ATTEMPTS + 1):
            thumbprint = await self._worker.thumbprint(anew=anew)
            verdict = await self._authority.authorize(
                caller, Act.VERIFY_WEBHOOK, require_id(connection), worker_thumbprint=thumbprint
            )
            scheme = arrived.scheme or await self._coordinator.webhook_scheme(verdict, connection)
            if scheme is None:
                raise SchemeUnknownError
            try:
                return await self._worker.verify_webhook(
                    verdict, connection, scheme, arrived, caller.request_id, thumbprint
                )
            except DomainError as error:
                anew = error.reason == _KEY_CHANGED
                if not anew or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("The last attempt returns or raises.")
