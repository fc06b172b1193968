"""`AuditEntry`: an audit event in a rule's own words. Ids, numbers and words of closed lists; it cannot hold a secret."""

from __future__ import annotations

from typing import Literal, NamedTuple

Outcome = Literal["SUCCEEDED", "FAILED", "REFUSED"]


class AuditEntry(NamedTuple):
    """One act, as it will stand in the log.

    Args:
        name: The EventName without its prefix, such as "TOKEN_REFRESHED".
        outcome: Whether it was carried out.
        actor: On whose behalf: "api_key:…", "member:…", "end_user:…", "service:…", "operator:…".
        request_id: The request it belongs to.
        workspace_id: The tenant; empty for acts on the installation.
        target: The id of what it was done to.
        purpose: For the use of a credential, the purpose, lower case.
        record_class: The number of the record class; 0: none.
        record_version: The record's version; 0: none.
        reason: When it was not carried out: a stable reason.
        grant_id: The grant that was used.
        source: The address the request came from, as the gateway saw it; empty: from inside.
        digest: SHA-256 that belongs to it, in hexadecimal, such as of a record's ciphertext.
        amount: How many, where an event tells of many; 0: it tells of one.
        until: A time that belongs to it, in its canonical encoding.
        provider: The id of the Provider concerned.
        records: Where it is about several records of its target, the number of the class and the version of each.
    """

    name: str
    outcome: Outcome
    actor: str
    request_id: str
    workspace_id: str = ""
    target: str = ""
    purpose: str = ""
    record_class: int = 0
    record_version: int = 0
    reason: str = ""
    grant_id: str = ""
    source: str = ""
    digest: str = ""
    amount: int = 0
    until: str = ""
    provider: str = ""
    records: tuple[tuple[int, int], ...] = ()
