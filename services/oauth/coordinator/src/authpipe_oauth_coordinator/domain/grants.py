"""The grants that coordinator signs: each for one job, one connection, one worker's key, a minute at most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from authpipe_envelope import CLIENT_SECRETS, RecordClass
from authpipe_grants import GrantCache, Issuer
from authpipe_oauth_coordinator.domain.words import Acting

_WORKER = "oauth/worker"
_CREDENTIALS, _SECRETS = "user-credentials", "client-secrets"
_CLASSES = {
    "store": (RecordClass.CODE_VERIFIER, RecordClass.DPOP_KEY),
    "exchange": (
        RecordClass.ACCESS,
        RecordClass.REFRESH,
        RecordClass.CODE_VERIFIER,
        RecordClass.ANSWER,
        RecordClass.DPOP_KEY,
        RecordClass.OAUTH1,
    ),
    "refresh": (RecordClass.ACCESS, RecordClass.REFRESH, RecordClass.ANSWER, RecordClass.DPOP_KEY),
    "revoke": (RecordClass.ACCESS, RecordClass.REFRESH),
    "health_check": (
        RecordClass.ACCESS,
        RecordClass.API_KEY,
        RecordClass.BASIC,
        RecordClass.DPOP_KEY,
        RecordClass.OAUTH1,
    ),
    "rotation_check": (RecordClass.API_KEY,),
}


class Grants:
    """Signs grants for the worker.

    Args:
        issuer: Signs with coordinator's own leaf.
        region: The region that grants name.
        clock: Gives seconds.
    """

    def __init__(self, issuer: Callable[[], Issuer], region: str, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._region = region
        self._clients = GrantCache(clock)

    def for_credential(  # required means argument
        self, purpose: str, acting: Acting, connection: str, thumbprint: str, *, fence: int = 0, forced: bool = False
    ) -> str:
        """Signs a grant on a connection's records."""
        classes = _CLASSES[purpose]
        return self._sign(_CREDENTIALS, purpose, acting, connection, classes, thumbprint, fence=fence, forced=forced)

    def for_client(self, acting: Acting, provider_config: str, classes: Sequence[int], thumbprint: str) -> str:
        """Signs a grant to authenticate as our OAuth client.

        The caller has a flow or a lease open, or a request to an API of a Provider that speaks OAuth 1.0a, which is signed
        as our client too. Refreshes of the same client within seconds share one: each use names its own request all the same.
        """
        return self._clients.get_or_issue(
            (acting.workspace, acting.actor, provider_config, tuple(classes), thumbprint, acting.source),
            lambda: self._sign(_SECRETS, "client_authentication", acting, provider_config, classes, thumbprint),
        )

    def for_reseal(
        self, acting: Acting, target: str, classes: Sequence[RecordClass], thumbprint: str, fence: int
    ) -> str:
        """Signs a grant to seal records of a connection or provider configuration again.

        keyservice takes it only for records that an operator's rotation has left on an older key version.
        """
        key_domain = _SECRETS if CLIENT_SECRETS & set(classes) else _CREDENTIALS
        return self._sign(key_domain, "reseal", acting, target, classes, thumbprint, fence=fence)

    def for_answer(self, acting: Acting, connection: str, thumbprint: str, fence: int) -> str:
        """Signs a grant to store an answer that was sealed under an earlier lease."""
        classes = (RecordClass.ANSWER,)
        return self._sign(_CREDENTIALS, "refresh", acting, connection, classes, thumbprint, fence=fence)

    def _sign(  # required means argument: each of these narrows the grant
        self,
        key_domain: str,
        purpose: str,
        acting: Acting,
        target: str,
        classes: Sequence[int],
        thumbprint: str,
        *,
        fence: int = 0,
        forced: bool = False,
    ) -> str:
        return self._issuer().issue(
            audience=(f"{key_domain}/{self._region}",),
            consumer=_WORKER,
            consumer_thumbprint=thumbprint,
            purpose=purpose,
            workspace=acting.workspace,
            connections=(target,),
            classes=tuple(classes),
            actor=acting.actor,
            request_id=acting.request_id,
            fence=fence,
            forced=forced,
            source=acting.source,
        )
