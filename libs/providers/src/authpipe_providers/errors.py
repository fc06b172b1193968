"""What is refused here, and what helps."""

from __future__ import annotations

from authpipe_sensitive import DomainError, Status


class EntryError(DomainError):
    """The description of a Provider is not one: the metadata says where it goes wrong. `authpipe-admin catalog lint` helps."""

    reason = "PROVIDER_ENTRY_MALFORMED"
    status = Status.INVALID_ARGUMENT


class ValueNotAllowedError(DomainError):
    """A value of this connection, such as its subdomain, is missing or not of the form that its Provider's entry asks for."""

    reason = "CONNECTION_VALUE_NOT_ALLOWED"
    status = Status.INVALID_ARGUMENT
