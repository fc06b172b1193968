"""Sealing records again under the newest version of their connection key: opened here, sealed here, nobody is called."""

from __future__ import annotations

from dataclasses import dataclass

from authpipe_consumer.words import Consumer, Opened, Sealing, Want
from authpipe_envelope import CLIENT_SECRETS, RecordClass

# There is nothing to do for a record that is not there, or is on the newest key version.
_NOTHING_TO_DO = {"RECORD_NOT_FOUND", "RECORD_KEY_CURRENT"}


@dataclass(frozen=True, slots=True)
class ResealJob:
    """What is to be sealed again.

    Args:
        workspace: The tenant.
        connection: The connection or, with class CLIENT_SECRET, the provider configuration.
        classes: The classes of its records.
        grant: To open and write them.
        fence: The fence of the lease; 0: none.
        request_id: The request.
    """

    workspace: str
    connection: str
    classes: tuple[RecordClass, ...]
    grant: str
    fence: int
    request_id: str


class Resealing:
    """Seals records again.

    Args:
        vault: The consumer of user credentials.
        secrets: The consumer of client secrets.
    """

    def __init__(self, vault: Consumer, secrets: Consumer) -> None:
        self._vault = vault
        self._secrets = secrets

    async def reseal(self, job: ResealJob) -> int:
        """Seals the records of a job again, all or none; gives how many. The second time there is nothing to do.

        Raises:
            DomainError: A record does not open, or was written meanwhile. Nothing was changed.
        """
        store = self._secrets if CLIENT_SECRETS & set(job.classes) else self._vault
        wants = [Want(job.workspace, job.connection, each, job.grant, job.request_id) for each in job.classes]
        found = await store.open(wants)
        opened = [each for each in found if isinstance(each, Opened)]
        try:
            for each in found:
                if not isinstance(each, Opened) and each.reason not in _NOTHING_TO_DO:
                    raise each
            if not opened:
                return 0
            classes = [each.record_class for each in opened]
            keys = await store.prepare(job.workspace, job.connection, classes, job.grant, job.request_id)
            # What a record is bound to, and what may be known of it, stays as it is.
            records = [
                store.seal(
                    keys[each.record_class],
                    Sealing(each.provider, each.hosts, each.masked, each.expires_at, job.fence),
                    each.plaintext,
                )
                for each in opened
            ]
        finally:
            for each in opened:
                each.plaintext.destroy()
        await store.put(records, [], job.grant, job.request_id)
        return len(records)
