"""What a grant says: the claims of a transaction token (draft-ietf-oauth-transaction-tokens).

header   alg ES256, typ txntoken+jwt, x5c the signer's leaf (and intermediates)
iss      the signer's SPIFFE path          req_wl   the consumer's SPIFFE path
aud      who may act on it, a list         cnf      {"jkt": thumbprint of the consumer's HPKE key}
scope    the purpose                       txn      the request id
tctx     workspace, connections, classes, fence, forced, actor
rctx     {"req_ip": the address that the request came from}, where it is known
iat, exp seconds; exp - iat ≤ 60           jti      the grant's own id
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from authpipe_sensitive import DomainError, Status

LONGEST_LIFE_SECONDS = 60


class GrantError(DomainError):
    """The grant does not allow this. It is expired, forged, or for another purpose, workspace, connection or consumer.

    Nothing was released; ask its signer for a new one.
    """

    reason = "GRANT_REFUSED"
    status = Status.PERMISSION_DENIED


class GrantTimeError(GrantError):
    """The grant is not of this time: it ended, or the clocks of its signer and of this process differ by over 30 s.

    Nothing was released. Where fresh grants are refused like this, compare the clocks of both machines.
    """

    reason = "GRANT_TIME"
    status = Status.PERMISSION_DENIED


@dataclass(frozen=True, slots=True)
class Grant:
    """The claims of a grant.

    Args:
        issuer: SPIFFE path of the signer; taken from its certificate when verified.
        audience: Who may act on it, such as "user-credentials/eu" or "oauth/eu".
        consumer: SPIFFE path of the consumer.
        consumer_thumbprint: `thumbprint()` of the consumer's HPKE public key.
        purpose: A word of the list of purposes, lower case.
        workspace: The tenant.
        connections: The connections or provider configurations it names; none: it names none.
        classes: The numbers of the record classes.
        fence: The fence of the lease it was signed under; 0: none.
        forced: Whether a refresh may come before it is due.
        actor: On whose behalf: "api_key:…", "member:…", "service:…".
        request_id: The request.
        grant_id: Its own id.
        issued_at: Seconds since the epoch.
        expires_at: Seconds since the epoch.
        source: The address that the request came from; empty: not known, or from inside.
    """

    issuer: str
    audience: tuple[str, ...]
    consumer: str
    consumer_thumbprint: str
    purpose: str
    workspace: str
    connections: tuple[str, ...]
    classes: tuple[int, ...]
    fence: int
    forced: bool
    actor: str
    request_id: str
    grant_id: str
    issued_at: int
    expires_at: int
    source: str = ""

    def to_claims(self) -> dict[str, Any]:
        """Gives the claims as they are signed."""
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": list(self.audience),
            "req_wl": self.consumer,
            "cnf": {"jkt": self.consumer_thumbprint},
            "scope": self.purpose,
            "tctx": {
                "workspace": self.workspace,
                "connections": list(self.connections),
                "classes": list(self.classes),
                "fence": self.fence,
                "forced": self.forced,
                "actor": self.actor,
            },
            "txn": self.request_id,
            "jti": self.grant_id,
            "iat": self.issued_at,
            "exp": self.expires_at,
        }
        if self.source:
            claims["rctx"] = {"req_ip": self.source}
        return claims

    @classmethod
    def from_claims(cls, claims: dict[str, Any]) -> Self:
        """Reads claims strictly: every one present, of its type, and no other.

        Raises:
            GrantError: A claim is missing, unknown or of another type.
        """
        try:
            context, confirmation = claims["tctx"], claims["cnf"]
            grant = cls(
                issuer=_text(claims["iss"]),
                audience=tuple(_text(value) for value in _list(claims["aud"])),
                consumer=_text(claims["req_wl"]),
                consumer_thumbprint=_text(confirmation["jkt"]),
                purpose=_text(claims["scope"]),
                workspace=_text(context["workspace"]),
                connections=tuple(_text(value) for value in _list(context["connections"])),
                classes=tuple(_number(value) for value in _list(context["classes"])),
                fence=_number(context["fence"]),
                forced=context["forced"] is True,
                actor=_text(context["actor"]),
                request_id=_text(claims["txn"]),
                grant_id=_text(claims["jti"]),
                issued_at=_number(claims["iat"]),
                expires_at=_number(claims["exp"]),
                source=_text(claims["rctx"]["req_ip"]) if "rctx" in claims else "",
            )
        except (KeyError, TypeError, AttributeError):
            raise GrantError from None
        if grant.to_claims() != claims:
            raise GrantError
        return grant


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value
