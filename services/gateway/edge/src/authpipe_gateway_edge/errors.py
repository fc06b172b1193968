"""Every reason that a customer may see: its HTTP status and the sentence that helps. REST and gRPC read this one table.

What is not in it is shown as INTERNAL with the request id, never with its text.
"""

from __future__ import annotations

from dataclasses import dataclass

from authpipe_sensitive import DomainError, Status


class MalformedRequestError(DomainError):
    """A field of the request is missing, too long or of another form."""

    reason = "REQUEST_MALFORMED"
    status = Status.INVALID_ARGUMENT


class NotFoundError(DomainError):
    """There is no such object in your workspace."""

    reason = "NOT_FOUND"
    status = Status.NOT_FOUND


class ApiKeyMissingError(DomainError):
    """There is no API key in the request."""

    reason = "API_KEY_MISSING"
    status = Status.UNAUTHENTICATED


class TooLargeError(DomainError):
    """The body is larger than 64 KiB."""

    reason = "BODY_TOO_LARGE"
    status = Status.INVALID_ARGUMENT


class CrossOriginError(DomainError):
    """The form was not sent from our own page."""

    reason = "CROSS_ORIGIN_REFUSED"
    status = Status.PERMISSION_DENIED


class TwoSecretsError(DomainError):
    """Two client secrets are in use. Retire the older one first."""

    reason = "TWO_CLIENT_SECRETS"


class SchemeUnknownError(DomainError):
    """Nobody says how what came is signed: give `scheme`, or import the secret with a Provider whose entry has `webhook`."""

    reason = "WEBHOOK_SCHEME_UNKNOWN"
    status = Status.INVALID_ARGUMENT


@dataclass(frozen=True, slots=True)
class Problem:
    """How a reason is shown.

    Args:
        http: The HTTP status.
        title: What kind of problem.
        detail: What is wrong and what helps.
    """

    http: int
    title: str
    detail: str

    @property
    def retry_after_seconds(self) -> int:
        """After how long it makes sense to try again; 0: it does not."""
        return {429: 10, 503: 2}.get(self.http, 0)


PROBLEMS: dict[str, Problem] = {
    "API_KEY_MISSING": Problem(401, "No API key", "Send your API key as `Authorization: Bearer ap_…`."),
    "API_KEY_INVALID": Problem(
        401, "API key not valid", "The API key is malformed, unknown or revoked. Use a current one."
    ),
    "SCOPE_MISSING": Problem(
        403, "Scope missing", "The API key is not allowed to do this. Use a key that has the scope, or create one."
    ),
    "SESSION_INVALID": Problem(401, "Signed out", "The session has ended, or there is none. Sign in again."),
    "SIGN_IN_REFUSED": Problem(
        401, "Passkey not accepted", "Begin again. If your passkey was removed, ask for a new invitation."
    ),
    "INVITATION_INVALID": Problem(
        401, "Invitation not valid", "It was used, has ended, or is none of ours. Ask for a new one."
    ),
    "TOO_MANY_SIGN_INS": Problem(
        429, "Too many sign-ins", "Too many were tried from this address within a minute. Wait a minute."
    ),
    "ROLE_INSUFFICIENT": Problem(
        403, "Role does not allow this", "Your role in the workspace does not allow this. Ask somebody whose role does."
    ),
    "MEMBER_EXISTS": Problem(
        409, "Member exists", "There is a member of this e-mail address. Remove them first, to invite them anew."
    ),
    "MEMBERS_FULL": Problem(409, "Too many members", "A workspace has 500 members at most. Remove somebody first."),
    "LAST_OWNER": Problem(409, "Last owner", "A workspace keeps an owner. Make somebody else one first."),
    "NOT_FOUND": Problem(404, "Not found", "There is no such object in your workspace. Check the id."),
    "REQUEST_MALFORMED": Problem(
        400, "Request malformed", "A field is missing, too long or of another form; `field` names it where we know it."
    ),
    "BODY_TOO_LARGE": Problem(413, "Body too large", "A request body may have up to 64 KiB."),
    "METHOD_NOT_ALLOWED": Problem(405, "Method not allowed", "See /docs for the methods of this address."),
    "CROSS_ORIGIN_REFUSED": Problem(
        403, "Cross-origin request refused", "Open the page again and use the button on it."
    ),
    "PROVIDER_UNKNOWN": Problem(
        400, "Provider unknown", "The catalog has no such Provider. Give `issuer` or explicit endpoints instead."
    ),
    "PROVIDER_EXISTS": Problem(
        409, "Provider exists", "There is a Provider of this name, in the catalog or of your own. Take another name."
    ),
    "PROVIDER_ENTRY_MALFORMED": Problem(
        400,
        "Provider entry malformed",
        "It does not fit the schema of the catalog, or makes no sense; `field` and `cause` say where.",
    ),
    "PROVIDER_API_UNKNOWN": Problem(
        409,
        "Provider API unknown",
        "Nothing is known of an API that this credential may be sent to. Describe the Provider with `api`, and connect anew.",
    ),
    "CREDENTIAL_NOT_PROXIABLE": Problem(
        409,
        "Credential not proxiable",
        "Its Provider's entry does not say where the API wants a credential of this kind.",
    ),
    "CREDENTIAL_NOT_FOR_THESE_HOSTS": Problem(
        403,
        "Credential not for these hosts",
        "It is bound to other hosts than its Provider's entry names. Connect anew.",
    ),
    "PROXY_REQUEST_NOT_ALLOWED": Problem(
        400, "Request not carried", "A method, base URL, path, query or header is not one that is carried; see `field`."
    ),
    "TOKEN_NOT_BOUND": Problem(
        409, "Token not bound", "The token of this connection is bound to no key: send it as Bearer, without a proof."
    ),
    "PROXY_BODY_TOO_LARGE": Problem(
        413, "Body too large to sign", "This API wants the body of a request signed: at most 1 MiB. Send smaller parts."
    ),
    "PROXY_BUSY": Problem(429, "Too many at once", "A hundred requests are under way. Wait until some have ended."),
    "PROVIDER_ANSWER_LOST": Problem(
        502,
        "Answer lost",
        "The request was sent, and no answer came; the Provider may have carried it out. See `cause`.",
    ),
    "TWO_CLIENT_SECRETS": Problem(
        409, "Two client secrets", "Two client secrets are in use. Retire the older one first."
    ),
    "ONE_CLIENT_SECRET": Problem(
        409, "One client secret", "There is but one: add the new one first, then the older one can be retired."
    ),
    "GRANT_NOT_OFFERED": Problem(
        400,
        "Grant not offered",
        "This Provider gives no tokens in that way, as far as its entry says; see `grants` of the provider configuration.",
    ),
    "CONNECTION_NOT_KEPT": Problem(
        409, "Connection not kept", "It is not kept, or not any more: it was erased. Connect the account anew."
    ),
    "CREDENTIAL_NOT_CHECKABLE": Problem(
        409,
        "Credential not checkable",
        "Nobody knows a harmless request for it. Describe its Provider with `health_check`, and import it anew.",
    ),
    "CHECK_TOO_SOON": Problem(429, "Tried just now", "The credential was tried within the last minute."),
    "WEBHOOK_SCHEME_UNKNOWN": Problem(
        400,
        "Webhook scheme unknown",
        "Nobody says how this is signed: give `scheme`, or import the secret with a Provider whose entry has `webhook`.",
    ),
    "WEBHOOK_SCHEME_NOT_ALLOWED": Problem(
        400,
        "Webhook scheme not allowed",
        "A word of it is unknown, no header is named, or a time is looked at unsigned.",
    ),
    "MATERIAL_UNUSABLE": Problem(
        400, "Material unusable", "What was brought to ask for tokens with cannot be used, such as a key that is none."
    ),
    "LEASE_HELD": Problem(503, "Connection busy", "Its credential is being written just now. Try again shortly."),
    "TOO_MANY_PROVIDERS": Problem(409, "Too many Providers", "A workspace describes at most two hundred of its own."),
    "CONNECTION_VALUE_NOT_ALLOWED": Problem(
        400,
        "Value not allowed",
        "A value such as the subdomain is missing or of another form; `values` of the provider configuration says which.",
    ),
    "CLIENT_KEY_UNUSABLE": Problem(
        400, "Client key unusable", "With private_key_jwt the client secret is a private key, a PEM or a JWK."
    ),
    "ENDPOINT_NOT_ALLOWED": Problem(
        400, "Endpoint not allowed", "A Provider's endpoint is an https URL with a host, without user or fragment."
    ),
    "ISSUER_METADATA_UNUSABLE": Problem(
        400,
        "Issuer metadata unusable",
        "The issuer's metadata cannot be used; `cause` says why. Give endpoints instead.",
    ),
    "PROVIDER_UNREACHABLE": Problem(
        502, "Provider not reached", "The Provider was not reached, or answered in a way we do not take; see `cause`."
    ),
    "REDIRECT_URI_NOT_ALLOWED": Problem(
        400,
        "Redirect URI not allowed",
        "A redirect URI is an https URL (or a loopback one) without wildcard, and must be in the allowlist to the letter.",
    ),
    "PROVIDER_CONFIG_IN_USE": Problem(
        409, "Provider configuration in use", "Connections still use it. Disconnect them first."
    ),
    "CONNECT_SESSION_INVALID": Problem(
        404, "Connect session not valid", "It is unknown or over; it lives ten minutes. Make a new one."
    ),
    "FLOW_STATE_INVALID": Problem(
        403,
        "This answer fits no open flow",
        "Its state is unknown, used or over, or the flow began in another browser. Start again.",
    ),
    "FLOW_ISSUER_MISMATCH": Problem(
        403,
        "Answer from another issuer",
        "The answer does not come from the Provider the flow began with. Start again.",
    ),
    "PROVIDER_DENIED": Problem(403, "Access not granted", "The Provider did not grant access. Start again to retry."),
    "CODE_EXCHANGE_FAILED": Problem(
        502,
        "Code not exchanged",
        "The Provider did not exchange the code; check client id and secret; see `provider_reason`.",
    ),
    "CONNECTION_DISCONNECTED": Problem(
        409, "Connection disconnected", "Nothing of it is served any more. Connect the account again."
    ),
    "CONNECTION_KEY_ERASED": Problem(404, "Not found", "There is no such object in your workspace. Check the id."),
    "RECORD_NOT_FOUND": Problem(404, "Not found", "There is no such object in your workspace. Check the id."),
    "CONNECTION_NEEDS_REAUTH": Problem(
        409, "Connection needs re-authorisation", "The token ended and cannot be refreshed. Connect the account again."
    ),
    "CONNECTION_NOT_REFRESHABLE": Problem(
        409, "Connection not refreshable", "It has no refresh token: there is nothing to refresh."
    ),
    "REFRESH_FAILED": Problem(
        503,
        "Token not refreshed",
        "The token ended and the Provider did not refresh it just now; see `cause`. Try again.",
    ),
    "REFRESH_TOO_SOON": Problem(429, "Refreshed just now", "The token was refreshed within the last ten seconds."),
    "REFRESH_NOT_DUE": Problem(429, "Refreshed just now", "The token is not due for refresh yet. Try again shortly."),
    "RECORD_INTEGRITY_VIOLATION": Problem(
        500,
        "Stored credential damaged",
        "The stored record was changed, moved or rolled back and was not used. An alarm was raised. Connect again.",
    ),
    "RECORD_ROLLED_BACK": Problem(
        500,
        "Stored credential damaged",
        "The stored record is older than the one in force and was not used. An alarm was raised. Connect again.",
    ),
    "RECORD_SUPERSEDED": Problem(
        503, "Credential just written", "The credential was written again and again meanwhile. Try again."
    ),
    "WRAPPED_KEY_TAMPERED": Problem(
        500, "Stored key damaged", "A stored key was changed or moved and was not used. An alarm was raised."
    ),
    "RELEASE_BUDGET_EXCEEDED": Problem(
        429, "Too many credentials asked for", "More were asked for in a minute than is allowed. Wait and try again."
    ),
    "HSM_UNAVAILABLE": Problem(503, "Keys not available", "The HSM does not answer. Try again shortly."),
    "CUSTOMER_KEY_UNAVAILABLE": Problem(
        424,
        "Your key is not available",
        "Your KMS refuses: the key is disabled or deleted, or our permission was removed. Give it back, and all works again.",
    ),
    "CUSTOMER_KMS_UNAVAILABLE": Problem(
        503, "Your KMS not available", "Your KMS does not answer as it should. Nothing is lost. Try again shortly."
    ),
    "CUSTOMER_KEY_PENDING": Problem(
        503, "Your KMS not available", "Your KMS has not answered yet. Nothing is lost. Try again shortly."
    ),
    "KEK_DISABLED": Problem(503, "Keys not available", "An operator has disabled the key that wraps this one."),
    "WORKSPACE_KEYS_ERASED": Problem(
        410, "Workspace erased", "This workspace's keys are destroyed or about to be: nothing of it opens any more."
    ),
    "DATABASE_UNAVAILABLE": Problem(503, "Database not available", "A database does not answer. Try again shortly."),
    "AUDIT_UNAVAILABLE": Problem(
        503, "Audit log not available", "Nothing that enlarges access is begun without it. Try again shortly."
    ),
    "WORKSPACE_FROZEN": Problem(
        403, "Workspace frozen", "Nothing of it is served or changed, and nothing is lost. Ask whoever runs Authpipe."
    ),
    "INCIDENT_NOT_FOUND": Problem(404, "Not found", "There is no such object in your workspace. Check the id."),
    "CONNECTION_NOT_A_DECOY": Problem(
        409,
        "Not fit for a decoy",
        "A decoy is an active connection whose credential nothing refreshes, such as an API key that opens nothing.",
    ),
    "AUDIT_BACKLOG": Problem(
        503,
        "Audit log not available",
        "It takes no events and there is no room to keep more. Disconnecting and revoking go on. Try again later.",
    ),
    "DEPENDENCY_UNAVAILABLE": Problem(
        503, "Service not available", "A service behind this one is away. Try again shortly."
    ),
    "NO_CHECKPOINT_YET": Problem(503, "No checkpoint yet", "Nothing was signed yet. Try again in a second."),
    "COSIGNATURE_REFUSED": Problem(
        400, "Not kept", "No witness that is known here has made this cosignature, or not of this checkpoint."
    ),
    "NO_SUCH_TILE": Problem(
        404,
        "No such tile",
        "The newest checkpoint's tree has no such tile. Take the checkpoint first (C2SP tlog-tiles).",
    ),
    "LOG_DAMAGED": Problem(500, "Log damaged", "Hashes of the log's tree are missing. Nothing is signed on top of it."),
    "PAGE_TOKEN_INVALID": Problem(400, "Page token not valid", "Begin again without `page_token`."),
    "INTERNAL": Problem(500, "Internal error", "Something failed that we did not foresee. Tell us the request id."),
}


def problem_of(error: DomainError) -> tuple[str, Problem]:
    """Gives the reason that is shown and how it is shown."""
    problem = PROBLEMS.get(error.reason)
    return (error.reason, problem) if problem is not None else ("INTERNAL", PROBLEMS["INTERNAL"])
