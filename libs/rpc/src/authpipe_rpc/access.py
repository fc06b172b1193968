"""Who may call what: read from the protos, decided by certificate (promise P09, ARCHITECTURE §2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import ServiceDescriptor

from authpipe.options.v1 import access_pb2
from authpipe.types.v1 import events_pb2
from authpipe_sensitive import DomainError, Status


class AccessError(DomainError):
    """This process may not call this method. The list of callers stands in the method's proto (allowed_callers)."""

    reason = "CALLER_NOT_ALLOWED"
    status = Status.PERMISSION_DENIED


class UndeclaredError(DomainError):
    """An rpc of this server says nothing about its callers or its audit event; the server does not start."""

    reason = "RPC_WITHOUT_OPTIONS"
    status = Status.INTERNAL


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """What an rpc declares.

    Args:
        callers: SPIFFE paths that may call it; "operator/*" is every path with one name below it; None: every process
            of the installation (health alone).
        emits: The number of the event it must leave; EVENT_NAME_NOTHING: none.
    """

    callers: frozenset[str] | None
    emits: int

    def allows(self, caller: str) -> bool:
        """Says whether a caller is among them."""
        if self.callers is None or caller in self.callers:
            return True
        kind, _, person = caller.rpartition("/")
        return bool(person) and f"{kind}/*" in self.callers


def policies_of(services: Iterable[ServiceDescriptor], server: str) -> Mapping[str, MethodPolicy]:
    """Reads the options of every rpc.

    Args:
        services: The services that a server serves.
        server: The SPIFFE path of the server.

    Returns:
        A policy by full method name, as grpc spells it: ``/authpipe.vault.v1.Vault/GetRecords``.

    Raises:
        UndeclaredError: An rpc lacks an option.
    """
    policies: dict[str, MethodPolicy] = {}
    for service in services:
        for method in service.methods:
            options = method.GetOptions()
            declared = options.Extensions[access_pb2.allowed_callers]
            emits = options.Extensions[access_pb2.emits]
            if not declared or emits == events_pb2.EVENT_NAME_UNSPECIFIED:
                raise UndeclaredError
            callers = frozenset(caller.peer for caller in declared if caller.server in ("", server))
            policies[f"/{service.full_name}/{method.name}"] = MethodPolicy(callers, emits)
    return policies
