"""Grants: transaction tokens by which record keys are released, and keys sealed to their consumer.

A grant is for one purpose, one workspace, named connections and classes, one consumer key, seconds (ARCHITECTURE §4).
No file and no socket in here: certificates, keys and the time are handed in.
"""

from authpipe_grants.claims import LONGEST_LIFE_SECONDS, Grant, GrantError, GrantTimeError
from authpipe_grants.consumer import (
    LONGEST_KEPT_SECONDS,
    ConsumerKey,
    Kind,
    ReleasedKey,
    SealedBundle,
    seal_to_consumer,
    thumbprint,
)
from authpipe_grants.issuing import GrantCache, Issuer
from authpipe_grants.leaf import Leaf, SignedBatch
from authpipe_grants.trust import TrustAnchor, spiffe_path
from authpipe_grants.verifying import Verifier

__all__ = [
    "LONGEST_KEPT_SECONDS",
    "LONGEST_LIFE_SECONDS",
    "ConsumerKey",
    "Grant",
    "GrantCache",
    "GrantError",
    "GrantTimeError",
    "Issuer",
    "Kind",
    "Leaf",
    "ReleasedKey",
    "SealedBundle",
    "SignedBatch",
    "TrustAnchor",
    "Verifier",
    "seal_to_consumer",
    "spiffe_path",
    "thumbprint",
]
