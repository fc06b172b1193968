"""Whose workspace an act is about, and who does it: an edge by its grant, an operator by a certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from authpipe_gateway_authority.errors import ForgedRowError, MalformedError, WorkspaceNotFoundError
from authpipe_grants import Grant, GrantError
from authpipe_sensitive import AuditEntry, DomainError
from authpipe_sensitive.entries import Outcome

_SELF = "gateway/authority"


class Asked(NamedTuple):
    """Who asks for what.

    Args:
        caller: The SPIFFE path of the caller.
        grant: From edge: its grant; from an operator: nothing.
        workspace: From an operator: the workspace.
        request_id: The request.
    """

    caller: str
    grant: str
    workspace: str
    request_id: str


class Acting(NamedTuple):
    """Who acts, for which workspace.

    Args:
        workspace: Whose.
        actor: Who: "api_key:…", "member:…" or "operator:…".
        source: The address that it was asked from; empty: not known.
        request_id: The request.
    """

    workspace: str
    actor: str
    source: str
    request_id: str

    @property
    def member_id(self) -> str:
        """Gives which member it is; empty: none."""
        kind, _, member_id = self.actor.partition(":")
        return member_id if kind == "member" else ""

    def entry(self, name: str, target: str, outcome: Outcome = "SUCCEEDED", reason: str = "") -> AuditEntry:
        """Makes an event of it."""
        return AuditEntry(
            name=name,
            outcome=outcome,
            actor=self.actor,
            request_id=self.request_id,
            workspace_id=self.workspace,
            target=target,
            reason=reason,
            source=self.source,
        )

    def refusal(self, target: str, error: DomainError) -> AuditEntry:
        """Makes the event of its refusal, which is an alarm where a row is not ours."""
        name = "AUTHORIZATION_ROW_FORGED" if isinstance(error, ForgedRowError) else "ACCESS_REFUSED"
        entry = self.entry(name, target, "REFUSED", error.reason)
        # Where there may be no such workspace, it is the installation's.
        return entry._replace(workspace_id="") if isinstance(error, WorkspaceNotFoundError) else entry


@asynccontextmanager
async def on_record(
    note: Callable[[Sequence[AuditEntry]], Awaitable[None]], acting: Acting, target: str, *errors: type[DomainError]
) -> AsyncIterator[None]:
    """Has it stand in the log that an act was refused because of one of these, or because a row is not ours.

    Args:
        note: Makes events durable.
        acting: Who acts.
        target: On what.
        errors: Which refusals; beside that of a row that is not ours.
    """
    try:
        yield
    except DomainError as error:
        if isinstance(error, (ForgedRowError, *errors)):
            await note([acting.refusal(target, error)])
        raise


class Actors:
    """Tells who acts.

    Args:
        verify: Verifies a grant's signature, chain and time.
        audience: What a grant must name to be taken here.
    """

    def __init__(self, verify: Callable[[str], Grant], audience: str) -> None:
        self._verify = verify
        self._audience = audience

    def of(self, asked: Asked, act: str) -> Acting:
        """Says who acts.

        Args:
            asked: Who asks.
            act: What for; an operator needs no grant for it.

        Raises:
            GrantError: The grant is not for that.
            MalformedError: An operator names no workspace.
        """
        if asked.caller.startswith("operator/"):
            if not asked.workspace:
                raise MalformedError
            return Acting(asked.workspace, f"operator:{asked.caller}", "", asked.request_id)
        grant = self._verify(asked.grant)
        is_ours = grant.issuer == _SELF and self._audience in grant.audience and grant.consumer == asked.caller
        if not is_ours or grant.purpose != f"manage.{act}":
            raise GrantError
        return Acting(grant.workspace, grant.actor, grant.source, asked.request_id)
