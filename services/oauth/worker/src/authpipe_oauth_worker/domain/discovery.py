"""Metadata of an issuer (RFC 8414; OpenID Connect Discovery 1.0): fetched once, when a provider configuration is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit, urlunsplit

from authpipe_oauth_worker.domain.answers import Answer, Failure, Said, judge_metadata
from authpipe_oauth_worker.errors import DiscoveryError
from authpipe_providers import Endpoints
from authpipe_sensitive import Label

_METHODS = ("client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none")
_FURTHER = (
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
    "device_authorization_endpoint",
    "introspection_endpoint",
    "userinfo_endpoint",
)


async def discover(issuer: str, get: Callable[[str], Awaitable[Answer]], read: Callable[[Answer], Said]) -> Endpoints:
    """Fetches metadata, at OpenID Connect's address first, which most Providers have.

    Args:
        issuer: The issuer's URL.
        get: Fetches a document.
        read: Reads it.

    Raises:
        DiscoveryError: It cannot be fetched or used.
        EgressError: The issuer cannot be reached.
    """
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    addresses = (
        f"{path}/.well-known/openid-configuration",
        f"/.well-known/oauth-authorization-server{path}",
    )
    reason = "NOT_FETCHED"
    for address in addresses:
        answer = await get(urlunsplit((parts.scheme, parts.netloc, address, "", "")))
        found = judge_metadata(answer, read(answer))
        if not isinstance(found, Failure):
            return _use(issuer, found)
        reason = found.reason
    raise DiscoveryError(cause=Label(reason))


def _use(issuer: str, data: Mapping[str, object]) -> Endpoints:
    # RFC 8414, section 3.3: another issuer in the document is an attack or a mistake.
    if data.get("issuer") != issuer:
        raise DiscoveryError(cause=Label("ISSUER_DIFFERS"))
    authorization, token = _text(data, "authorization_endpoint"), _text(data, "token_endpoint")
    further = {name: _text(data, name) if data.get(name) else "" for name in _FURTHER}
    iss_required = data.get("authorization_response_iss_parameter_supported") is True
    # Mix-up (RFC 9700, section 4.4): without `iss` in its answers, an issuer may not send browsers to another's host,
    # whose codes would then come to its own token endpoint.
    if not iss_required and urlsplit(authorization).hostname != urlsplit(issuer).hostname:
        raise DiscoveryError(cause=Label("AUTHORIZATION_ENDPOINT_OF_ANOTHER_HOST"))
    offered = data.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    method = next((each for each in _METHODS if isinstance(offered, list) and each in offered), None)
    if method is None:
        raise DiscoveryError(cause=Label("NO_KNOWN_CLIENT_AUTHENTICATION"))
    return Endpoints(
        issuer,
        authorization,
        token,
        further["revocation_endpoint"],
        method,
        iss_required,
        pushed_endpoint=further["pushed_authorization_request_endpoint"],
        device_endpoint=further["device_authorization_endpoint"],
        introspection_endpoint=further["introspection_endpoint"],
        userinfo_endpoint=further["userinfo_endpoint"],
        dpop=_lists(data, "dpop_signing_alg_values_supported", "ES256"),
    )


def _lists(data: Mapping[str, object], name: str, wanted: str) -> bool:
    offered = data.get(name)
    return isinstance(offered, list) and wanted in offered


def _text(data: Mapping[str, object], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise DiscoveryError(cause=Label("ENDPOINT_MISSING"))
    return value
