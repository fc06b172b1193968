"""Who calls: the SPIFFE id of the peer's certificate, and until when it waits for the answer."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from authpipe_sensitive import DomainError, Label, RedactedError, Status

if TYPE_CHECKING:
    import grpc

CALLER: ContextVar[Label | None] = ContextVar("authpipe_caller", default=None)
DEADLINE: ContextVar[float | None] = ContextVar("authpipe_deadline", default=None)


class IdentityError(DomainError):
    """The peer's certificate does not name one process of this installation, or the connection is not TLS 1.3."""

    reason = "PEER_NOT_IDENTIFIED"
    status = Status.UNAUTHENTICATED


def dns_name(spiffe_path: str) -> str:
    """Gives the DNS SAN of a process: a grpc client in Python can check nothing else of its server's certificate."""
    return f"{spiffe_path.replace('/', '-')}.authpipe.internal"


def identify(context: grpc.aio.ServicerContext[object, object], trust_domain: str) -> Label:
    """Gives the path of the caller's SPIFFE id (SPIFFE X.509-SVID, section 5.2: exactly one URI SAN).

    Raises:
        IdentityError: No or several URI names, another trust domain, or not TLS 1.3.
    """
    auth = context.auth_context()
    if list(auth.get("ssl_tls_version", ())) != [b"TLSv1.3"]:
        raise IdentityError
    uris = list(auth.get("peer_uri", ()))
    prefix = f"spiffe://{trust_domain}/".encode()
    if len(uris) != 1 or not uris[0].startswith(prefix):
        raise IdentityError
    try:
        return Label(uris[0][len(prefix) :].decode("ascii"))
    except (UnicodeDecodeError, RedactedError):
        raise IdentityError from None


def current_caller() -> Label:
    """Gives the caller of the rpc being served.

    Raises:
        LookupError: No rpc is being served here.
    """
    caller = CALLER.get()
    if caller is None:
        raise LookupError("No rpc is being served.")
    return caller


def current_actor() -> str:
    """Gives the caller of the rpc being served as the actor of its events: "operator:alice" for operator/alice.

    Raises:
        LookupError: No rpc is being served here.
    """
    return str(current_caller()).replace("/", ":", 1)


def current_request_deadline() -> float | None:
    """Gives the moment (monotonic seconds) until which the caller waits; None outside a call."""
    return DEADLINE.get()


def remaining(default_seconds: float, shave_seconds: float = 0.05) -> float:
    """Gives how long a call further down may take: what is left of our own, less a little for the way back."""
    deadline = DEADLINE.get()
    if deadline is None:
        return default_seconds
    return max(0.001, min(default_seconds, deadline - time.monotonic() - shave_seconds))
