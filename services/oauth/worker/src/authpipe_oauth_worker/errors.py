"""What the worker refuses, and what helps."""

from __future__ import annotations

from authpipe_sensitive import DomainError, Status


class ConsumerKeyChangedError(DomainError):
    """The grants of this job are bound to a key that this worker does not have: it was restarted. Sign them anew."""

    reason = "CONSUMER_KEY_CHANGED"


class HostError(DomainError):
    """The credential is not bound to the hosts of this job's endpoints. It was not sent. Connect the account again."""

    reason = "CREDENTIAL_NOT_FOR_THESE_HOSTS"
    status = Status.PERMISSION_DENIED


class ClientKeyError(DomainError):
    """The client's key is no private key in PEM or JWK that can sign. Give the provider configuration another one."""

    reason = "CLIENT_KEY_UNUSABLE"
    status = Status.INVALID_ARGUMENT


class ProxyRequestError(DomainError):
    """The request is not one that is carried: its method, base URL, path, query or a header; the metadata names it."""

    reason = "PROXY_REQUEST_NOT_ALLOWED"
    status = Status.INVALID_ARGUMENT


class ApiUnknownError(DomainError):
    """Nothing is known of an API that this credential may be sent to. Describe its Provider with `api`, and connect anew."""

    reason = "PROVIDER_API_UNKNOWN"


class BodyTooLargeError(DomainError):
    """This API wants the body of a request signed, for which it may have at most 1 MiB. Send it in smaller parts."""

    reason = "PROXY_BODY_TOO_LARGE"
    status = Status.INVALID_ARGUMENT


class ProxyBusyError(DomainError):
    """This workspace has a hundred requests under way here. Wait until some have ended."""

    reason = "PROXY_BUSY"
    status = Status.RESOURCE_EXHAUSTED


class NotProxiableError(DomainError):
    """Nobody knows where this API wants a credential of this kind. Describe its Provider with `api_key` or `basic`."""

    reason = "CREDENTIAL_NOT_PROXIABLE"


class NotBoundError(DomainError):
    """The token of this connection is bound to no key: send it as Bearer, without a proof."""

    reason = "TOKEN_NOT_BOUND"


class NotCheckableError(DomainError):
    """Nobody knows a harmless request for this credential. Describe its Provider with `health_check`."""

    reason = "CREDENTIAL_NOT_CHECKABLE"


class MaterialError(DomainError):
    """What the connection has brought to ask for tokens with cannot be used. Import it again."""

    reason = "MATERIAL_UNUSABLE"
    status = Status.INVALID_ARGUMENT


class WebhookSchemeError(DomainError):
    """The scheme of a webhook's signature makes no sense: a word is unknown, no header is named, or a time is not signed."""

    reason = "WEBHOOK_SCHEME_NOT_ALLOWED"
    status = Status.INVALID_ARGUMENT


class DiscoveryError(DomainError):
    """The issuer's metadata cannot be used; the metadata of this error says why. Give explicit endpoints instead."""

    reason = "ISSUER_METADATA_UNUSABLE"
    status = Status.INVALID_ARGUMENT


class EgressError(DomainError):
    """The Provider was not reached, and nothing was sent to it; the metadata says why."""

    reason = "PROVIDER_UNREACHABLE"
    status = Status.UNAVAILABLE


class AnswerLostError(DomainError):
    """A request was sent, and no answer came that we take; the Provider may have carried it out all the same."""

    reason = "PROVIDER_ANSWER_LOST"
    status = Status.UNAVAILABLE


class MalformedError(DomainError):
    """The job names a record class that does not exist."""

    reason = "REQUEST_MALFORMED"
    status = Status.INVALID_ARGUMENT


class SpoolError(DomainError):
    """This worker's disk takes no answer, or too many wait on it: no token was sent. Make place, or bring vault back."""

    reason = "SPOOL_UNAVAILABLE"
    status = Status.UNAVAILABLE
