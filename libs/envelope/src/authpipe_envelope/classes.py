"""Record classes: the kinds of secret, by the numbers of authpipe.types.v1.RecordClass (a test keeps them equal)."""

from __future__ import annotations

import enum


class RecordClass(enum.IntEnum):
    """The kind of secret in a record. A grant names classes, so that serving never opens a refresh token."""

    ACCESS = 1
    REFRESH = 2
    API_KEY = 3
    BASIC = 4
    WEBHOOK_SECRET = 5
    CLIENT_SECRET = 6
    CODE_VERIFIER = 7
    ANSWER = 8
    CLIENT_SECRET_2 = 9
    DPOP_KEY = 10
    OAUTH1 = 11


SERVABLE = frozenset(
    {
        RecordClass.ACCESS,
        RecordClass.API_KEY,
        RecordClass.BASIC,
        RecordClass.WEBHOOK_SECRET,
        RecordClass.OAUTH1,
    }
)
# Of one provider configuration: two take turns, so that a new one is in use before the one before is retired.
CLIENT_SECRETS = frozenset({RecordClass.CLIENT_SECRET, RecordClass.CLIENT_SECRET_2})
# Records that are deleted when they have been used once; their versions go on rising.
TRANSIENT = frozenset({RecordClass.CODE_VERIFIER, RecordClass.ANSWER})
