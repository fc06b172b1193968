"""What coordinator refuses, and what helps."""

from __future__ import annotations

from authpipe_sensitive import DomainError, Status


class NotFoundError(DomainError):
    """There is no such object in this workspace."""

    reason = "NOT_FOUND"
    status = Status.NOT_FOUND


class MalformedError(DomainError):
    """A field of the request is missing, too long or of another form; the metadata names it."""

    reason = "REQUEST_MALFORMED"
    status = Status.INVALID_ARGUMENT


class UnknownProviderError(DomainError):
    """The catalog has no such Provider. Give an issuer URL or explicit endpoints instead."""

    reason = "PROVIDER_UNKNOWN"
    status = Status.INVALID_ARGUMENT


class ProviderExistsError(DomainError):
    """There is a Provider of this name already, in the catalog or of your own. Take another name, or delete yours first."""

    reason = "PROVIDER_EXISTS"
    status = Status.ALREADY_EXISTS


class TooManyProvidersError(DomainError):
    """A workspace may describe two hundred Providers of its own. Delete those that no provider configuration needs."""

    reason = "TOO_MANY_PROVIDERS"


class EndpointError(DomainError):
    """A Provider's endpoint is an https URL with a host, without user, fragment or control characters."""

    reason = "ENDPOINT_NOT_ALLOWED"
    status = Status.INVALID_ARGUMENT


class RedirectUriError(DomainError):
    """A redirect URI is an https URL (or a loopback one) without wildcard, user or fragment, and is compared exactly."""

    reason = "REDIRECT_URI_NOT_ALLOWED"
    status = Status.INVALID_ARGUMENT


class GrantNotOfferedError(DomainError):
    """This Provider gives no tokens in that way, as far as its entry says. Choose one of its `grants`."""

    reason = "GRANT_NOT_OFFERED"
    status = Status.INVALID_ARGUMENT


class TwoSecretsError(DomainError):
    """Two client secrets are in use. Retire the older one first."""

    reason = "TWO_CLIENT_SECRETS"


class OneSecretError(DomainError):
    """There is but one client secret: add the new one first, then the older one can be retired."""

    reason = "ONE_CLIENT_SECRET"


class NotKeptError(DomainError):
    """The connection is not kept, or not any more: it was erased. Connect the account anew."""

    reason = "CONNECTION_NOT_KEPT"


class NotCheckableError(DomainError):
    """Nobody knows a harmless request for this credential. Describe its Provider with `health_check`."""

    reason = "CREDENTIAL_NOT_CHECKABLE"


class CheckTooSoonError(DomainError):
    """The credential was tried within the last minute."""

    reason = "CHECK_TOO_SOON"
    status = Status.RESOURCE_EXHAUSTED


class AnswerNotAwaitedError(DomainError):
    """Nobody waits for this answer any more: it was found elsewhere, given up, or its connection is gone."""

    reason = "ANSWER_NOT_AWAITED"


class LeaseHeldError(DomainError):
    """The connection's records are being written by somebody else for half a minute now. Try again."""

    reason = "LEASE_HELD"
    status = Status.ABORTED


class InUseError(DomainError):
    """Connections still use this provider configuration. Disconnect them first."""

    reason = "PROVIDER_CONFIG_IN_USE"


class SessionError(DomainError):
    """The connect session is unknown or over; it lives ten minutes. Make a new one."""

    reason = "CONNECT_SESSION_INVALID"
    status = Status.NOT_FOUND


class FlowError(DomainError):
    """This answer fits no open flow of this browser: its state is unknown, used, over, or began elsewhere. Start again."""

    reason = "FLOW_STATE_INVALID"
    status = Status.PERMISSION_DENIED


class IssuerMismatchError(DomainError):
    """The answer came from another issuer than the flow began with, or does not say from which. Nothing was exchanged."""

    reason = "FLOW_ISSUER_MISMATCH"
    status = Status.PERMISSION_DENIED


class ProviderDeniedError(DomainError):
    """The Provider did not grant access: the account's owner said no, or the Provider refused the request."""

    reason = "PROVIDER_DENIED"


class ExchangeError(DomainError):
    """The Provider did not exchange the code; the metadata says why. Check the client id and secret, and start again."""

    reason = "CODE_EXCHANGE_FAILED"


class DisconnectedError(DomainError):
    """The connection is disconnected. Connect the account again."""

    reason = "CONNECTION_DISCONNECTED"


class NeedsReauthError(DomainError):
    """The token ended and cannot be refreshed any more. The end user has to connect the account again."""

    reason = "CONNECTION_NEEDS_REAUTH"


class RefreshFailedError(DomainError):
    """The token ended and the Provider did not refresh it just now; the metadata says why. Try again shortly."""

    reason = "REFRESH_FAILED"
    status = Status.UNAVAILABLE


class RefreshTooSoonError(DomainError):
    """This token was refreshed within the last ten seconds. Use what is stored, or try again shortly."""

    reason = "REFRESH_TOO_SOON"
    status = Status.RESOURCE_EXHAUSTED


class NotRefreshableError(DomainError):
    """This connection has no refresh token: there is nothing to refresh."""

    reason = "CONNECTION_NOT_REFRESHABLE"


class DecoyError(DomainError):
    """A decoy is an active connection whose credential nothing refreshes, such as an imported API key that opens nothing."""

    reason = "CONNECTION_NOT_A_DECOY"


class NoApiError(DomainError):
    """Nothing is known of an API that this connection's credential may be sent to. Describe its Provider with `api`."""

    reason = "PROVIDER_API_UNKNOWN"


class AuditUnavailableError(DomainError):
    """The audit log cannot be reached, so nothing that enlarges access is begun. Try again shortly."""

    reason = "AUDIT_UNAVAILABLE"
    status = Status.UNAVAILABLE
