"""Authorize: from an API key and an act to a verdict with grants."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from authpipe_gateway_authority.domain.acts import ACTS, ActRule
from authpipe_gateway_authority.domain.api_keys import ApiKeyRow, WorkspaceRow
from authpipe_gateway_authority.errors import ApiKeyError, ForgedRowError, FrozenError, MalformedError, ScopeError
from authpipe_grants import GrantCache, Issuer
from authpipe_sensitive import AuditEntry, DomainError, Secret

_EDGE = "gateway/edge"
_ID = re.compile(r"[a-z]{2,4}_[0-9A-Za-z]{10,40}")


@dataclass(frozen=True, slots=True)
class ActAsked:
    """One act under one API key.

    Args:
        key_hash: The keyed hash of its API key; None: it is none of the form of ours.
        act: The number of the act.
        target: The connection or provider configuration; empty for lists.
        classes: The classes that an import writes.
        request_id: The request.
        worker_thumbprint: Of the worker's HPKE key, where the worker is the consumer.
        source: The address that the request came from; empty: not known.
    """

    key_hash: bytes | None
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
        workspace: The workspace of the API key.
        api_key_id: The actor.
        record_grant: To have record keys released; empty: none needed.
        manage_grant: To act for the workspace.
    """

    workspace: str
    api_key_id: str
    record_grant: str
    manage_grant: str


class Store(Protocol):
    """authority's own tables."""

    async def find(self, key_hashes: Sequence[bytes]) -> dict[bytes, tuple[ApiKeyRow, WorkspaceRow]]:
        """Gives API keys with their workspaces, by keyed hash."""

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""


class Budget(Protocol):
    """Counts within fixed windows."""

    async def take(self, name: str) -> bool:
        """Takes one; False: it is used up."""


class Sessions:
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
        self._rows: OrderedDict[bytes, tuple[float, ApiKeyRow]] = OrderedDict()
        self._epochs: dict[str, int] = {}
        self._frozen: set[str] = set()

    def forget(self) -> None:
        """Drops what is remembered of rows and grants: something was revoked, or frozen."""
        self._rows.clear()
        self._grants = GrantCache(self._clock)

    async def authorize(self, thumbprint: str, asked: Sequence[ActAsked]) -> list[Verdict | DomainError]:
        """Judges a batch of acts, each under its own API key.

        Args:
            thumbprint: Of the consumer's HPKE key, to which grants are bound.
            asked: The acts.
        """
        rows = await self._look_up({each.key_hash for each in asked})
        verdicts: list[Verdict | DomainError] = []
        entries = []
        for each in asked:
            row = rows[each.key_hash]
            try:
                if isinstance(row, DomainError):
                    raise row
                verdicts.append(self._judge(row, each, thumbprint))
            except DomainError as error:
                verdicts.append(error)
                workspace = row.workspace if isinstance(row, ApiKeyRow) else ""
                forged = isinstance(error, ForgedRowError)
                if forged or await self._refusals.take(workspace):
                    entries.append(_refused(each, row, error))
        if entries:
            await self._store.note(entries)
        return verdicts

    async def _look_up(self, hashes: set[bytes | None]) -> dict[bytes | None, ApiKeyRow | DomainError]:
        now = self._clock()
        found: dict[bytes | None, ApiKeyRow | DomainError] = {None: ApiKeyError()}
        unknown: list[bytes] = []
        for key_hash in filter(None, hashes):
            kept = self._rows.get(key_hash)
            if kept is not None and now < kept[0]:
                found[key_hash] = kept[1]
            else:
                unknown.append(key_hash)
        if unknown:
            stored = await self._store.find(unknown)
            for key_hash in unknown:
                row = found[key_hash] = self._check(stored.get(key_hash))
                if isinstance(row, ApiKeyRow):
                    self._rows[key_hash] = (now + self._keep, row)
                    while len(self._rows) > 10_000:
                        self._rows.popitem(last=False)
        return found

    def _check(self, stored: tuple[ApiKeyRow, WorkspaceRow] | None) -> ApiKeyRow | DomainError:
        if stored is None:
            return ApiKeyError()
        row, workspace = stored
        # A row is believed only with its MAC, in its workspace's epoch, and never in an epoch older than one seen.
        newest = max(self._epochs.get(row.workspace, 0), workspace.epoch)
        genuine = row.is_genuine(self._mac_key) and workspace.is_genuine(self._mac_key)
        if not genuine or row.epoch != newest or workspace.workspace != row.workspace:
            return ForgedRowError()
        self._epochs[row.workspace] = newest
        if workspace.is_frozen:
            self._frozen.add(row.workspace)
        else:
            self._frozen.discard(row.workspace)
        return row if row.state == "active" else ApiKeyError()

    def _judge(self, row: ApiKeyRow, asked: ActAsked, thumbprint: str) -> Verdict:
        rule = ACTS.get(asked.act)
        if rule is None or (asked.target and _ID.fullmatch(asked.target) is None):
            raise MalformedError
        if rule.scope not in row.scopes:
            raise ScopeError
        if row.workspace in self._frozen and not rule.when_frozen:
            raise FrozenError
        classes = asked.classes or rule.classes
        if rule.purpose and (not asked.target or not set(classes) <= set(rule.classes)):
            raise MalformedError
        opener = thumbprint if rule.consumer == _EDGE else asked.worker_thumbprint
        if not opener:
            raise MalformedError
        record_grant = self._grant(row, asked, opener, rule, classes) if rule.purpose else ""
        # Serving needs no target in its manage grant: one signature serves every connection of the workspace.
        connections = (asked.target,) if asked.target and rule.name != "serve" else ()
        manage_grant = self._grants.get_or_issue(
            ("manage", rule.name, row.api_key_id, connections, thumbprint, asked.source),
            lambda: self._issuer().issue(
                audience=tuple(
                    f"{each}/{self._region}" for each in ("oauth", "audit", "vault", "clientsecrets", "gateway")
                ),
                consumer=_EDGE,
                consumer_thumbprint=thumbprint,
                purpose=f"manage.{rule.name}",
                workspace=row.workspace,
                connections=connections,
                classes=(),
                actor=f"api_key:{row.api_key_id}",
                request_id=asked.request_id,
                source=asked.source,
            ),
        )
        return Verdict(row.workspace, row.api_key_id, record_grant, manage_grant)

    def _grant(self, row: ApiKeyRow, asked: ActAsked, thumbprint: str, rule: ActRule, classes: tuple[int, ...]) -> str:
        return self._grants.get_or_issue(
            (rule.purpose, row.api_key_id, asked.target, classes, thumbprint, asked.source),
            lambda: self._issuer().issue(
                audience=(f"{rule.key_domain}/{self._region}",),
                consumer=rule.consumer,
                consumer_thumbprint=thumbprint,
                purpose=rule.purpose,
                workspace=row.workspace,
                connections=(asked.target,),
                classes=classes,
                actor=f"api_key:{row.api_key_id}",
                request_id=asked.request_id,
                source=asked.source,
            ),
        )


def _refused(asked: ActAsked, row: ApiKeyRow | DomainError, error: DomainError) -> AuditEntry:
    return AuditEntry(
        name="AUTHORIZATION_ROW_FORGED" if isinstance(error, ForgedRowError) else "ACCESS_REFUSED",
        outcome="REFUSED",
        actor=f"api_key:{row.api_key_id}" if isinstance(row, ApiKeyRow) else "api_key:unknown",
        request_id=asked.request_id,
        workspace_id=row.workspace if isinstance(row, ApiKeyRow) else "",
        reason=error.reason,
        source=asked.source,
    )
