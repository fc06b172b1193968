"""The grants that coordinator signs: each for one job, one connection, one worker's key, a minute at most."""

from __future__ import annotations

from collections.abc import Callable

from authpipe_grants import Issuer
from authpipe_oauth_coordinator.domain.words import Acting

_WORKER = "oauth/worker"
# The numbers of authpipe.types.v1.RecordClass.
_ACCESS, _REFRESH, _CLIENT_SECRET, _CODE_VERIFIER, _ANSWER = 1, 2, 6, 7, 8
_CLASSES = {
    "store": (_CODE_VERIFIER,),
    "exchange": (_ACCESS, _REFRESH, _CODE_VERIFIER, _ANSWER),
    "refresh": (_ACCESS, _REFRESH, _ANSWER),
    "revoke": (_ACCESS, _REFRESH),
}


class Grants:
    """Signs grants for the worker.

    Args:
        issuer: Signs with coordinator's own leaf.
        region: The region that grants name.
    """

    def __init__(self, issuer: Callable[[], Issuer], region: str) -> None:
        self._issuer = issuer
        self._region = region

    def for_credential(  # required means argument
        self, purpose: str, acting: Acting, connection: str, thumbprint: str, *, fence: int = 0, forced: bool = False
    ) -> str:
        """Signs a grant on a connection's records."""
        return self._issuer().issue(
            audience=(f"user-credentials/{self._region}",),
            consumer=_WORKER,
            consumer_thumbprint=thumbprint,
            purpose=purpose,
            workspace=acting.workspace,
            connections=(connection,),
            classes=_CLASSES[purpose],
            actor=acting.actor,
            request_id=acting.request_id,
            fence=fence,
            forced=forced,
        )

    def for_client(self, acting: Acting, provider_config: str, thumbprint: str) -> str:
        """Signs a grant to authenticate as our OAuth client. The caller has a flow or a lease open."""
        return self._issuer().issue(
            audience=(f"client-secrets/{self._region}",),
            consumer=_WORKER,
            consumer_thumbprint=thumbprint,
            purpose="client_authentication",
            workspace=acting.workspace,
            connections=(provider_config,),
            classes=(_CLIENT_SECRET,),
            actor=acting.actor,
            request_id=acting.request_id,
        )
