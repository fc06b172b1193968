"""URLs that are compared or called: endpoints of Providers, and redirect URIs (promise P15; case 20).

Nothing is normalised: a URI is in the allowlist to the letter or not at all (RFC 6749, section 3.1.2.3; RFC 9700, 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

from authpipe_oauth_coordinator.errors import EndpointError, RedirectUriError

_LONGEST = 2_000
_PLAIN = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\]")
_LOOPBACK = {"127.0.0.1", "[::1]", "localhost"}


def _is_plain(url: str) -> bool:
    return len(url) <= _LONGEST and _PLAIN.fullmatch(url) is not None and not set(url) & set('"<>\\^`{|}')


def require_endpoint(url: str) -> str:
    """Gives the host of an endpoint.

    Raises:
        EndpointError: It is not an https URL with a plain lower-case host.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise EndpointError from None
    if not _is_plain(url) or parts.scheme != "https" or "@" in parts.netloc or "#" in url or "*" in url:
        raise EndpointError
    shown = f"[{host}]" if ":" in host else host
    if _HOST.fullmatch(shown) is None or ".." in host or host != host.lower() or parts.netloc != parts.netloc.lower():
        raise EndpointError
    return host


def require_redirect_uris(uris: Iterable[str]) -> tuple[str, ...]:
    """Gives an allowlist as it is stored.

    Raises:
        RedirectUriError: It is empty, or an entry is a wildcard, not https (but loopback), or has user or fragment.
    """
    allowed = tuple(dict.fromkeys(uris))
    if not 1 <= len(allowed) <= 20:
        raise RedirectUriError
    for uri in allowed:
        try:
            parts = urlsplit(uri)
            host = parts.hostname or ""
            _ = parts.port
        except ValueError:
            raise RedirectUriError from None
        loopback = (f"[{host}]" if ":" in host else host) in _LOOPBACK
        secure = parts.scheme == "https" or (parts.scheme == "http" and loopback)
        if not _is_plain(uri) or not secure or not host or set("*#@") & set(uri) or host.endswith("."):
            raise RedirectUriError
        if parts.netloc != parts.netloc.lower() or "/../" in f"{parts.path}/" or "%" in parts.path:
            raise RedirectUriError
    return allowed


def require_listed(uri: str, allowed: Iterable[str]) -> None:
    """Returns when a redirect URI is in the allowlist, to the letter.

    Raises:
        RedirectUriError: It is not.
    """
    if uri not in tuple(allowed):
        raise RedirectUriError


def authorization_url(endpoint: str, parameters: dict[str, str]) -> str:
    """Gives the URL that the browser is sent to (RFC 6749, section 4.1.1); a query of the endpoint stays."""
    return endpoint + ("&" if "?" in endpoint else "?") + urlencode(parameters)


def origin(url: str) -> str:
    """Gives scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
