"""End users in the log: by a pseudonym, and forgotten for good when its key is destroyed (promise P29).

The customer's own id of an end user may be an e-mail address. The log gets HMAC-SHA256 of it under a key of that end user's
own: the same person is the same pseudonym in a workspace, and nobody computes it without the key. Erasing the person
destroys the key: the leaves stay what they are, and nothing leads from the person to them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Protocol

from authpipe_oauth_coordinator.domain.words import Acting, audit_entry
from authpipe_oauth_coordinator.errors import MalformedError
from authpipe_sensitive import AuditEntry, Label

_KEY_SIZE, _PSEUDONYM_DIGITS = 32, 24
_LONGEST_ID = 200


class SubjectStore(Protocol):
    """Keys of pseudonyms."""

    async def key_of(self, workspace: str, end_user_id: str, fresh: bytes) -> bytes:
        """Gives the key of an end user; the fresh one, if there was none."""

    async def connections_of(self, workspace: str, end_user_id: str) -> list[str]:
        """Gives the connections of an end user that are not erased yet."""

    async def forget(self, workspace: str, end_user_id: str, entry: AuditEntry) -> None:
        """Destroys an end user's key and takes the id out of every row, with the event of it."""


class Subjects:
    """The rules over end users.

    Args:
        store: Keys of pseudonyms.
        disconnect: Disconnects a connection, keeping nothing.
        randomness: Gives random bytes.
    """

    def __init__(
        self,
        store: SubjectStore,
        disconnect: Callable[[Acting, str], Awaitable[object]],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._disconnect = disconnect
        self._randomness = randomness

    async def pseudonym(self, workspace: str, end_user_id: str) -> str:
        """Gives the actor by which the log knows an end user: "end_user:…"."""
        key = await self._store.key_of(workspace, end_user_id, self._randomness(_KEY_SIZE))
        message = f"authpipe-subject/v1\n{workspace}\n{end_user_id}".encode()
        return f"end_user:{hmac.new(key, message, hashlib.sha256).hexdigest()[:_PSEUDONYM_DIGITS]}"

    async def erase(self, acting: Acting, end_user_id: str) -> int:
        """Erases everything of an end user; gives how many connections there were.

        Each is disconnected first: it is not served from that moment, and what is to be done at its Provider is done
        without the end user's id. Should we die on the way, asking again does the rest.

        Raises:
            MalformedError: It is no id of an end user.
            DomainError: A connection could not be disconnected; nothing of the end user is forgotten yet.
        """
        if not 1 <= len(end_user_id) <= _LONGEST_ID or not end_user_id.isprintable():
            raise MalformedError(field=Label("end_user_id"))
        pseudonym = await self.pseudonym(acting.workspace, end_user_id)
        connections = await self._store.connections_of(acting.workspace, end_user_id)
        for connection in connections:
            await self._disconnect(acting, connection)
        entry = audit_entry("END_USER_ERASED", acting, pseudonym.removeprefix("end_user:"))
        await self._store.forget(acting.workspace, end_user_id, entry)
        return len(connections)
