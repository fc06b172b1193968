"""What audit refuses, and what helps."""

from __future__ import annotations

from authpipe_sensitive import DomainError, Status


class MalformedEventError(DomainError):
    """An event is not in its canonical encoding, or names what is not in the catalogue. Nothing of the batch was logged.

    Where emitters were updated before audit, update audit; the events wait in their outboxes.
    """

    reason = "EVENT_MALFORMED"
    status = Status.INVALID_ARGUMENT


class BatchSignatureError(DomainError):
    """The batch is not signed by the process that sent it. Nothing of it was logged."""

    reason = "BATCH_SIGNATURE_WRONG"
    status = Status.PERMISSION_DENIED


class EventsMissingError(DomainError):
    """Events of this emitter are missing before this batch: they were lost from the log, or from its outbox.

    Nothing was logged. Where audit's database was restored from a backup, docs/audit.md says what to do.
    """

    reason = "EVENTS_MISSING"
    status = Status.FAILED_PRECONDITION


class EventsDifferError(DomainError):
    """Other events were logged under these sequence numbers. Nothing was logged now.

    The emitter's database was set back, or somebody invents its events; docs/audit.md says what to do.
    """

    reason = "EVENTS_DIFFER"
    status = Status.FAILED_PRECONDITION


class PageTokenError(DomainError):
    """The page token is not one that a page ended with. Begin again without it."""

    reason = "PAGE_TOKEN_INVALID"
    status = Status.INVALID_ARGUMENT


class LogDamagedError(DomainError):
    """Hashes of the tree that must be there are not. Nothing is signed; somebody has changed the log's database.

    Restore it as docs/audit.md says; the events that came since wait in their outboxes.
    """

    reason = "LOG_DAMAGED"
    status = Status.DATA_LOSS


class SignedLaterError(DomainError):
    """The signer has signed another tree than the one we had signed last.

    Where it is larger than ours, the log's database was set back: nothing is signed; docs/audit.md says what to do.

    Args:
        size: Of the tree that it signed last.
    """

    reason = "CHECKPOINT_SIGNED_LATER"
    status = Status.DATA_LOSS

    def __init__(self, size: int) -> None:
        super().__init__(signed_size=size)
        self.size = size


class NoSuchTileError(DomainError):
    """The newest checkpoint's tree has no such tile. Take the checkpoint first, and the tiles that its size has."""

    reason = "NO_SUCH_TILE"
    status = Status.NOT_FOUND


class CosignatureError(DomainError):
    """No witness that is known here has made this cosignature, or not of this checkpoint. Nothing was kept."""

    reason = "COSIGNATURE_REFUSED"
    status = Status.INVALID_ARGUMENT


class NoCheckpointError(DomainError):
    """No checkpoint has been signed yet. Try again in a second."""

    reason = "NO_CHECKPOINT_YET"
    status = Status.UNAVAILABLE


class NoSuchIncidentError(DomainError):
    """There is no such incident. List them: authpipe-admin incidents list."""

    reason = "INCIDENT_NOT_FOUND"
    status = Status.NOT_FOUND


class IncidentStateError(DomainError):
    """The incident is in this state already, or further. It goes forward only; what happens anew opens another one."""

    reason = "INCIDENT_STATE"
    status = Status.FAILED_PRECONDITION
