"""Why a refresh failed, and what helps: the one table of it (RFC 6749, section 5.2; RFC 9110, section 15).

The worker turns what a Provider said, or what happened on the way to it, into a word of a closed list; here stands what each
word means. What is not in the table is one of our own parts being away: it is tried again whenever somebody asks.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Cure(enum.Enum):
    """Who can mend it.

    OURSELVES: one of our parts is away; it is tried whenever somebody asks. TIME: the Provider, by and by; it is tried
    later and later. CUSTOMER: whoever owns the provider configuration; it is tried later and later too, for it may be mended
    at the Provider. END_USER: nothing helps but connecting the account again; it is not tried.
    """

    OURSELVES = "ourselves"
    TIME = "time"
    CUSTOMER = "customer"
    END_USER = "end_user"


class Meaning(NamedTuple):
    """What a failure means.

    Args:
        cure: Who can mend it.
        helps: What helps, a sentence.
    """

    cure: Cure
    helps: str


_WAIT = "It is tried again by itself, later and later; the token that is stored is served until it ends."
_CONFIGURATION = (
    "It is tried again by itself once an hour, and at once when you change the provider configuration or refresh."
)

_MEANINGS = {
    # What is said of the token: RFC 6749, section 5.2.
    "INVALID_GRANT": Meaning(
        Cure.END_USER, "The Provider ended the grant. The end user has to connect the account again."
    ),
    "REFRESH_ANSWER_LOST": Meaning(
        Cure.END_USER,
        "The Provider's answer to a refresh was lost and it takes the token only once. The end user has to connect the"
        " account again.",
    ),
    "CREDENTIALS_REFUSED": Meaning(
        Cure.END_USER, "The Provider gives no token for what the connection has brought. Import it again."
    ),
    "CREDENTIAL_REFUSED": Meaning(
        Cure.END_USER,
        "The Provider said twice that the credential is not good. Connect the account again, or import another one.",
    ),
    "CALLBACK_TOKEN_DIFFERS": Meaning(
        Cure.END_USER, "What the browser came back with is not of the flow that it began. Begin again."
    ),
    "MATERIAL_UNUSABLE": Meaning(
        Cure.END_USER, "What the connection has brought to ask for tokens with cannot be used. Import it again."
    ),
    "ACCESS_DENIED": Meaning(Cure.END_USER, "The end user did not agree."),
    "EXPIRED_TOKEN": Meaning(Cure.END_USER, "The end user did not agree in time."),
    # What is said of our OAuth client.
    "CLIENT_KEY_UNUSABLE": Meaning(
        Cure.CUSTOMER, f"The client's key or certificate cannot be used: give another one. {_CONFIGURATION}"
    ),
    "INVALID_CLIENT": Meaning(
        Cure.CUSTOMER, f"The Provider does not take the client id or secret: mend it. {_CONFIGURATION}"
    ),
    "UNAUTHORIZED_CLIENT": Meaning(
        Cure.CUSTOMER, f"The Provider does not let this client refresh: allow it there. {_CONFIGURATION}"
    ),
    "UNSUPPORTED_GRANT_TYPE": Meaning(
        Cure.CUSTOMER, f"The token endpoint knows no refresh: check it. {_CONFIGURATION}"
    ),
    "INVALID_REQUEST": Meaning(
        Cure.CUSTOMER,
        f"The Provider does not understand the request: check its endpoints and parameters. {_CONFIGURATION}",
    ),
    "INVALID_SCOPE": Meaning(Cure.CUSTOMER, f"The Provider does not know a scope: check them. {_CONFIGURATION}"),
    "INVALID_DPOP_PROOF": Meaning(
        Cure.CUSTOMER,
        "The Provider does not take the proof of the key that tokens are bound to, or our clocks differ: make a provider"
        f" configuration with `bearer_only`. {_CONFIGURATION}",
    ),
    "USE_DPOP_NONCE": Meaning(Cure.TIME, f"The Provider wanted another nonce in the proof of a key twice. {_WAIT}"),
    "INVALID_TARGET": Meaning(Cure.CUSTOMER, f"The Provider does not know a resource: check it. {_CONFIGURATION}"),
    # What is said of the endpoint, by it or by the way to it.
    "ENDPOINT_GONE": Meaning(
        Cure.CUSTOMER, f"There is no token endpoint at its address any more: check it. {_CONFIGURATION}"
    ),
    "PROVIDER_REDIRECTS": Meaning(
        Cure.CUSTOMER, f"The token endpoint redirects, which is not followed with a secret: check it. {_CONFIGURATION}"
    ),
    "PROVIDER_ANSWER_MALFORMED": Meaning(
        Cure.CUSTOMER, f"What the Provider answers is no token answer: check the token endpoint. {_CONFIGURATION}"
    ),
    "TOKEN_TYPE_UNKNOWN": Meaning(
        Cure.CUSTOMER,
        f"The Provider gives tokens of a type that nobody here can use: check its settings. {_CONFIGURATION}",
    ),
    "PROVIDER_TLS_TOO_OLD": Meaning(
        Cure.CUSTOMER, f"The Provider speaks no TLS 1.3, and nothing is sent over less. {_CONFIGURATION}"
    ),
    "PUBLIC_KEY_NOT_PINNED": Meaning(
        Cure.CUSTOMER, f"The Provider shows a key that is not among the pinned ones; nothing was sent. {_CONFIGURATION}"
    ),
    "ADDRESS_NOT_PUBLIC": Meaning(
        Cure.CUSTOMER, f"The token endpoint's name leads to an address that is not public: check it. {_CONFIGURATION}"
    ),
    "URL_NOT_ALLOWED": Meaning(
        Cure.CUSTOMER, f"The token endpoint is not called under this URL: check it. {_CONFIGURATION}"
    ),
    "CREDENTIAL_NOT_FOR_THESE_HOSTS": Meaning(
        Cure.END_USER,
        "The credential is bound to other hosts than its provider configuration names. The end user has to connect the"
        " account again.",
    ),
    # What passes.
    "PROVIDER_UNAVAILABLE": Meaning(Cure.TIME, f"The Provider says that it is not available. {_WAIT}"),
    "AUTHORIZATION_PENDING": Meaning(Cure.TIME, f"The end user has not agreed yet. {_WAIT}"),
    "PROVIDER_SLOW_DOWN": Meaning(Cure.TIME, f"The Provider asks for fewer requests. {_WAIT}"),
    "PROVIDER_REFUSED": Meaning(Cure.TIME, f"The Provider refused without saying why. {_WAIT}"),
    "PROVIDER_CIRCUIT_OPEN": Meaning(
        Cure.TIME,
        f"The Provider's host did not answer several times in a row and is left alone for some seconds. {_WAIT}",
    ),
    "NAME_NOT_RESOLVED": Meaning(Cure.TIME, f"The Provider's name is not resolved. {_WAIT}"),
    "CONNECTION_FAILED": Meaning(Cure.TIME, f"The Provider is not reached. {_WAIT}"),
    "TIMEOUT": Meaning(Cure.TIME, f"The Provider is not reached in time. {_WAIT}"),
}
_OURSELVES = Meaning(
    Cure.OURSELVES,
    "A part of Authpipe is away, or waits for another. It is tried again by itself, and whenever you ask.",
)


def meaning(failure: str) -> Meaning:
    """Gives what a failure means.

    Args:
        failure: A stable reason in UPPER_SNAKE.
    """
    return _MEANINGS.get(failure, _OURSELVES)


def known() -> frozenset[str]:
    """Gives the failures of the table, for the test that compares it with what the worker may say."""
    return frozenset(_MEANINGS)
