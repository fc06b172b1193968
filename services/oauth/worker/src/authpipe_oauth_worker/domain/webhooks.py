"""Whether what came was sent by whoever has a connection's webhook secret. The secret stays here; yes or no goes out.

The signature is an HMAC over bytes that the scheme names; each signature in its header is compared in constant time, all of
them always, so that neither which nor how far one fits can be measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from authpipe_consumer.words import Consumer, Want
from authpipe_envelope import RecordClass
from authpipe_oauth_worker.errors import WebhookSchemeError
from authpipe_providers import WebhookScheme
from authpipe_sensitive import DomainError, Secret

_PLACE = re.compile(rb"\{(body|timestamp|id)\}")
_TIME = re.compile(r"[0-9]{1,12}")
_MOST_SIGNATURES = 16


@dataclass(frozen=True, slots=True)
class Arrived:
    """What came to the customer's address.

    Args:
        workspace: The tenant.
        connection: The connection.
        grant: To open its secret.
        request_id: The request.
        headers: Names, lower case, with values.
        body: To the byte.
    """

    workspace: str
    connection: str
    grant: str
    request_id: str
    headers: Mapping[str, str]
    body: bytes


Matches = Callable[[Secret, WebhookScheme, bytes, Sequence[str]], bool]


class Webhooks:
    """Compares signatures.

    Args:
        vault: The consumer of user credentials.
        matches: Whether one of some signatures is the secret's over a message.
        now: Seconds since the epoch.
    """

    def __init__(self, vault: Consumer, matches: Matches, now: Callable[[], float]) -> None:
        self._vault = vault
        self._matches = matches
        self._now = now

    async def verify(self, arrived: Arrived, scheme: WebhookScheme) -> str:
        """Says why what came is not believed; empty: it is.

        Raises:
            WebhookSchemeError: The scheme makes no sense.
            DomainError: The secret does not open.
        """
        _require_scheme(scheme)
        header = arrived.headers.get(scheme.signature_header, "")
        parts = [each.strip() for each in header.split(scheme.separator)] if scheme.separator else [header]
        signatures = [each.removeprefix(scheme.prefix) for each in parts if each and each.startswith(scheme.prefix)]
        if not signatures or len(parts) > _MOST_SIGNATURES:
            return "SIGNATURE_MISSING"
        timestamp = _timestamp(arrived, scheme, parts)
        if timestamp is None:
            return "TIMESTAMP_MISSING"
        identifier = arrived.headers.get(scheme.id_header, "") if scheme.id_header else ""
        filled = {b"body": arrived.body, b"timestamp": timestamp.encode(), b"id": identifier.encode()}
        message = _PLACE.sub(lambda place: filled[place.group(1)], scheme.signed.encode())
        want = Want(
            arrived.workspace, arrived.connection, RecordClass.WEBHOOK_SECRET, arrived.grant, arrived.request_id
        )
        found = (await self._vault.open([want]))[0]
        if isinstance(found, DomainError):
            raise found
        with found.plaintext:
            if not self._matches(found.plaintext, scheme, message, signatures):
                return "SIGNATURE_DIFFERS"
        # Only what is genuine is told to be old: whoever has no secret learns nothing of our clock.
        late = scheme.tolerance_seconds and abs(self._now() - int(timestamp or 0)) > scheme.tolerance_seconds
        return "TIMESTAMP_TOO_OLD" if late else ""


def _timestamp(arrived: Arrived, scheme: WebhookScheme, parts: Sequence[str]) -> str | None:
    """Gives the time that came, in seconds; None: there is none where there has to be one."""
    if scheme.timestamp_prefix:
        found = next((each for each in parts if each.startswith(scheme.timestamp_prefix)), "")
        text = found.removeprefix(scheme.timestamp_prefix)
    elif scheme.timestamp_header:
        text = arrived.headers.get(scheme.timestamp_header, "")
    else:
        return ""
    return text if _TIME.fullmatch(text) else None


def _require_scheme(scheme: WebhookScheme) -> None:
    good = scheme.algorithm in {"sha256", "sha1", "sha512"} and scheme.encoding in {"hex", "base64"}
    timed = bool(scheme.timestamp_header or scheme.timestamp_prefix)
    if not good or not scheme.signature_header or "{body}" not in scheme.signed:
        raise WebhookSchemeError
    # A time that is looked at and not signed could be anybody's.
    if (scheme.tolerance_seconds or "{timestamp}" in scheme.signed) and not timed:
        raise WebhookSchemeError
    if scheme.tolerance_seconds and "{timestamp}" not in scheme.signed:
        raise WebhookSchemeError
