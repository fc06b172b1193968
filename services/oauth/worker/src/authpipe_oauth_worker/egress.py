"""The way out: one request to one host of a job, TLS 1.3, no redirect, bounded in size and time.

The name is resolved once, every address has to be public, and the connection goes to the address that was checked, so
that a second answer of the name server changes nothing (DNS rebinding). The only module that imports an HTTP client.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx2
from authlib.oauth2.auth import ClientAuth

from authpipe_oauth_worker.domain.answers import Answer
from authpipe_oauth_worker.errors import EgressError
from authpipe_sensitive import Label, Secret

_LONGEST_ANSWER = 1024 * 1024
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "Authpipe"}


class Egress:
    """Sends requests to Providers.

    Args:
        ca: A further CA to believe; None: the usual ones alone.
        allow_loopback: Whether addresses of this machine may be called.
        timeout_seconds: How long an answer may take, in all.
    """

    def __init__(self, ca: Path | None, timeout_seconds: float, *, allow_loopback: bool) -> None:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if ca is not None:
            context.load_verify_locations(ca)
        self._client = httpx2.AsyncClient(
            verify=context, follow_redirects=False, trust_env=False, timeout=timeout_seconds, headers=_HEADERS
        )
        self._timeout = timeout_seconds
        self._allow_loopback = allow_loopback

    async def get(self, url: str) -> Answer:
        """Fetches a document.

        Raises:
            EgressError: It was not reached, or answered too much or too late.
        """
        return await self._send("GET", url, {}, None)

    async def post_form(
        self, url: str, form: Mapping[str, Secret | str], client_id: str, client_secret: Secret | None, method: str
    ) -> Answer:
        """Sends a form, authenticated as our OAuth client (RFC 6749, section 2.3.1). Once: nothing here retries.

        Raises:
            EgressError: It was not reached, or answered too much or too late.
        """
        body = _encode_form(form)
        headers = {"content-type": "application/x-www-form-urlencoded"}
        secret = client_secret.expose().decode() if client_secret is not None else ""
        auth = ClientAuth(client_id, secret, method)
        _, headers, body = auth.prepare("POST", url, headers, body)
        return await self._send("POST", url, headers, body.encode() if isinstance(body, str) else body)

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        try:
            async with asyncio.timeout(self._timeout):
                address = await self._resolve(host, parts.port or 443)
                shown = f"[{address}]" if ":" in address else address
                target = urlunsplit((parts.scheme, f"{shown}:{parts.port or 443}", parts.path, parts.query, ""))
                request = self._client.build_request(
                    method,
                    target,
                    headers={**headers, "host": parts.netloc},
                    content=body,
                    extensions={"sni_hostname": host},
                )
                response = await self._client.send(request, stream=True)
                try:
                    return await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise EgressError(cause=Label("TIMEOUT")) from None
        except httpx2.TimeoutException:
            raise EgressError(cause=Label("TIMEOUT")) from None
        except (httpx2.HTTPError, ssl.SSLError, OSError):
            raise EgressError(cause=Label("CONNECTION_FAILED")) from None

    async def _resolve(self, host: str, port: int) -> str:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise EgressError(cause=Label("NAME_NOT_RESOLVED")) from None
        addresses = [str(each[4][0]) for each in found]
        for address in addresses:
            if not self._may_call(ipaddress.ip_address(address)):
                raise EgressError(cause=Label("ADDRESS_NOT_PUBLIC"))
        return addresses[0]

    def _may_call(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
        if mapped is not None:
            return self._may_call(mapped)
        if address.is_loopback:
            return self._allow_loopback
        # RFC 6052: 64:ff9b::/96 leads to IPv4 behind a translator.
        translated = isinstance(address, ipaddress.IPv6Address) and address in ipaddress.ip_network("64:ff9b::/96")
        return address.is_global and not address.is_multicast and not translated


async def _read(response: httpx2.Response) -> Answer:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > _LONGEST_ANSWER:
            raise EgressError(cause=Label("ANSWER_TOO_LARGE"))
    retry_after = response.headers.get("retry-after", "")
    seconds = int(retry_after) if retry_after.isdigit() and len(retry_after) < 6 else 0
    return Answer(response.status_code, Secret.adopt(body), seconds)


def _encode_form(form: Mapping[str, Secret | str]) -> str:

    plain = {name: value.expose().decode() if isinstance(value, Secret) else value for name, value in form.items()}
    return urlencode(plain)
