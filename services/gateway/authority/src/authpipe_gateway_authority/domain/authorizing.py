"""Authorize: from an API key or a session, and an act, to a verdict with grants."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from authpipe_gateway_authority.domain.acts import ACTS, ActRule
from authpipe_gateway_authority.domain.api_keys import ApiKeyRow, WorkspaceRow
from authpipe_gateway_authority.domain.members import ROLES, MemberRow, SessionRow
from authpipe_gateway_authority.domain.principals import Credential, Principal
from authpipe_gateway_authority.errors import (
    ApiKeyError,
    ForgedRowError,
    FrozenError,
    MalformedError,
    RoleError,
    ScopeError,
    SessionError,
)
from authpipe_grants import GrantCache, Issuer
from authpipe_sensitive import AuditEntry, DomainError, Secret

_EDGE = "gateway/edge"
_ID = re.compile(r"[a-z]{2,4}_[0-9A-Za-z]{10,40}")


@dataclass(frozen=True, slots=True)
class ActAsked:
    """One act under one API key or session.

    Args:
        credential: The API key or the token of the session.
        act: The number of the act.
        target: The connection or provider configuration; empty for lists.
        classes: The classes that an import writes.
        request_id: The request.
        worker_thumbprint: Of the worker's HPKE key, where the worker is the consumer.
        source: The address that the request came from; empty: not known.
    """

    credential: Credential
    act: int
    target: str
    classes: tuple[int, ...]
    request_id: str
    worker_thumbprint: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """May be done.

    Args:
        workspace: The workspace of the API key or member.
        actor_id: The id of the API key or member.
        record_grant: To have record keys released; empty: none needed.
        manage_grant: To act for the workspace.
    """

    workspace: str
    actor_id: str
    record_grant: str
    manage_grant: str


class Store(Protocol):
    """authority's own tables."""

    async def find(self, key_hashes: Sequence[bytes]) -> dict[bytes, tuple[ApiKeyRow, WorkspaceRow]]:
        """Gives API keys with their workspaces, by keyed hash."""

    async def find_sessions(
        self, token_hashes: Sequence[bytes]
    ) -> dict[bytes, tuple[SessionRow, MemberRow, WorkspaceRow]]:
        """Gives sessions with their members and workspaces, by keyed hash."""

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""


class Budget(Protocol):
    """Counts within fixed windows."""

    async def take(self, name: str) -> bool:
        """Takes one; False: it is used up."""


class Authorizing:
    """Judges acts.

    Args:
        store: authority's own tables.
        mac_key: The key of the rows' MAC.
        issuer: Signs grants.
        region: The region that grants name.
        refusals: Events about refusals; beyond it they are counted, not written.
        clock: Gives seconds.
        keep_seconds: For how long a row is believed before it is read again.
    """

    def __init__(  # required means argument
        self,
        *,
        store: Store,
        mac_key: Secret,
        issuer: Callable[[], Issuer],
        region: str,
        refusals: Budget,
        clock: Callable[[], float],
        keep_seconds: float,
    ) -> None:
        self._store = store
        self._mac_key = mac_key
        self._issuer = issuer
        self._region = region
        self._refusals = refusals
        self._clock = clock
        self._keep = keep_seconds
        self._grants = GrantCache(clock)
        self._known: OrderedDict[Credential, tuple[float, Principal]] = OrderedDict()
        self._epochs: dict[str, int] = {}
        self._frozen: set[str] = set()

    def forget(self) -> None:
        """Drops what is remembered of rows and grants: something was revoked, or frozen."""
        self._known.clear()
        self._grants = GrantCache(self._clock)

    async def authorize(self, thumbprint: str, asked: Sequence[ActAsked]) -> list[Verdict | DomainError]:
        """Judges a batch of acts, each under its own API key or session.

        Args:
            thumbprint: Of the consumer's HPKE key, to which grants are bound.
            asked: The acts.
        """
        found = await self._look_up({each.credential for each in asked})
        verdicts: list[Verdict | DomainError] = []
        entries = []
        for each in asked:
            principal = found[each.credential]
            try:
                if isinstance(principal, DomainError):
                    raise principal
                verdicts.append(self._judge(principal, each, thumbprint))
            except DomainError as error:
                verdicts.append(error)
                workspace = principal.workspace if isinstance(principal, Principal) else ""
                forged = isinstance(error, ForgedRowError)
                if forged or await self._refusals.take(workspace):
                    entries.append(_refused(each, principal, error))
        if entries:
            await self._store.note(entries)
        return verdicts

    async def _look_up(self, credentials: set[Credential]) -> dict[Credential, Principal | DomainError]:
        now = self._clock()
        found: dict[Credential, Principal | DomainError] = {}
        unknown: list[Credential] = []
        for each in credentials:
            kept = self._known.get(each)
            if each.key_hash is None:
                found[each] = _unknown(each)
            elif kept is not None and now < kept[0]:
                found[each] = kept[1]
            else:
                unknown.append(each)
        # Most batches are of API keys that are known: then nothing is asked.
        keys = [each.key_hash for each in unknown if each.kind == "api_key" and each.key_hash]
        sessions = [each.key_hash for each in unknown if each.kind == "member" and each.key_hash]
        stored = await self._store.find(keys) if keys else {}
        of_members = await self._store.find_sessions(sessions) if sessions else {}
        for each in unknown:
            until = now + self._keep
            if each.kind == "api_key":
                principal = self._check_key(stored.get(each.key_hash or b""))
            else:
                session = of_members.get(each.key_hash or b"")
                principal = self._check_session(session, now)
                until = min(until, session[0].expires_at) if session else until
            found[each] = principal
            if isinstance(principal, Principal):
                self._known[each] = (until, principal)
                while len(self._known) > 10_000:
                    self._known.popitem(last=False)
        return found

    def _check_key(self, stored: tuple[ApiKeyRow, WorkspaceRow] | None) -> Principal | DomainError:
        if stored is None:
            return ApiKeyError()
        row, workspace = stored
        if not row.is_genuine(self._mac_key) or not self._is_newest(workspace, row):
            return ForgedRowError()
        principal = Principal(row.workspace, row.api_key_id, "api_key", row.scopes)
        return principal if row.state == "active" else ApiKeyError()

    def _check_session(
        self, stored: tuple[SessionRow, MemberRow, WorkspaceRow] | None, now: float
    ) -> Principal | DomainError:
        if stored is None:
            return SessionError()
        session, member, workspace = stored
        genuine = session.is_genuine(self._mac_key) and member.is_genuine(self._mac_key)
        fits = session.member_id == member.member_id
        if not genuine or not fits or not self._is_newest(workspace, session, member):
            return ForgedRowError()
        if now >= session.expires_at or member.state != "active":
            return SessionError()
        return Principal(member.workspace, member.member_id, "member", ROLES[member.role])

    def _is_newest(self, workspace: WorkspaceRow, *rows: ApiKeyRow | SessionRow | MemberRow) -> bool:
        """Says whether rows are in their workspace's epoch, and that in no epoch older than one seen."""
        newest = max(self._epochs.get(workspace.workspace, 0), workspace.epoch)
        fit = all(row.epoch == newest and row.workspace == workspace.workspace for row in rows)
        if not fit or not workspace.is_genuine(self._mac_key):
            return False
        self._epochs[workspace.workspace] = newest
        if workspace.is_frozen:
            self._frozen.add(workspace.workspace)
        else:
            self._frozen.discard(workspace.workspace)
        return True

    def _judge(self, who: Principal, asked: ActAsked, thumbprint: str) -> Verdict:
        rule = ACTS.get(asked.act)
        if rule is None or (asked.target and _ID.fullmatch(asked.target) is None):
            raise MalformedError
        if rule.scope not in who.scopes:
            raise RoleError if who.kind == "member" else ScopeError
        if who.workspace in self._frozen and not rule.when_frozen:
            raise FrozenError
        classes = asked.classes or rule.classes
        if rule.purpose and (not asked.target or not set(classes) <= set(rule.classes)):
            raise MalformedError
        opener = thumbprint if rule.consumer == _EDGE else asked.worker_thumbprint
        if not opener:
            raise MalformedError
        record_grant = self._grant(who, asked, opener, rule, classes) if rule.purpose else ""
        # Serving needs no target in its manage grant: one signature serves every connection of the workspace.
        connections = (asked.target,) if asked.target and rule.name != "serve" else ()
        manage_grant = self._grants.get_or_issue(
            ("manage", rule.name, who.actor, connections, thumbprint, asked.source),
            lambda: self._issuer().issue(
                audience=tuple(
                    f"{each}/{self._region}" for each in ("oauth", "audit", "vault", "clientsecrets", "gateway")
                ),
                consumer=_EDGE,
                consumer_thumbprint=thumbprint,
                purpose=f"manage.{rule.name}",
                workspace=who.workspace,
                connections=connections,
                classes=(),
                actor=who.actor,
                request_id=asked.request_id,
                source=asked.source,
            ),
        )
        return Verdict(who.workspace, who.id, record_grant, manage_grant)

    def _grant(self, who: Principal, asked: ActAsked, thumbprint: str, rule: ActRule, classes: tuple[int, ...]) -> str:
        return self._grants.get_or_issue(
            (rule.purpose, who.actor, asked.target, classes, thumbprint, asked.source),
            lambda: self._issuer().issue(
                audience=(f"{rule.key_domain}/{self._region}",),
                consumer=rule.consumer,
                consumer_thumbprint=thumbprint,
                purpose=rule.purpose,
                workspace=who.workspace,
                connections=(asked.target,),
                classes=classes,
                actor=who.actor,
                request_id=asked.request_id,
                source=asked.source,
            ),
        )


def _unknown(credential: Credential) -> DomainError:
    return ApiKeyError() if credential.kind == "api_key" else SessionError()


def _refused(asked: ActAsked, who: Principal | DomainError, error: DomainError) -> AuditEntry:
    return AuditEntry(
        name="AUTHORIZATION_ROW_FORGED" if isinstance(error, ForgedRowError) else "ACCESS_REFUSED",
        outcome="REFUSED",
        actor=who.actor if isinstance(who, Principal) else f"{asked.credential.kind}:unknown",
        request_id=asked.request_id,
        workspace_id=who.workspace if isinstance(who, Principal) else "",
        target=asked.target if _ID.fullmatch(asked.target) else "",
        reason=error.reason,
        source=asked.source,
    )
