"""Keys on their way to a consumer: sealed with HPKE to its key, signed by keyservice.

The store in between relays them. HPKE's base mode does not say who sealed, so a store that is taken over could seal a
write key of its own making and later read what was written with it; hence the signature of keyservice's leaf. And an
old answer replayed would have one write key seal two plaintexts, which breaks GCM; hence the challenge, fresh for each
call, in what is signed and in HPKE's info.

    info       "authpipe keys v1" ‖ kind (1 byte: 1 record keys, 2 write keys) ‖ challenge (32)
    sealed     HPKE (RFC 9180) base, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM
    payload    per key: index (4, big-endian) ‖ version (8) ‖ key version (4) ‖ seconds to keep it (1) ‖ salt (32) ‖ material (76)
    signature  ECDSA P-256, SHA-256, over info ‖ public key ‖ SHA-256(sealed)
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from authpipe_grants.claims import GrantError
from authpipe_grants.trust import TrustAnchor
from authpipe_sensitive import Secret

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_ENTRY = struct.Struct(">IQIB32s76s")
# The longest that a consumer keeps a record key that it was given: as long as a revoked API key may still work. ARCHITECTURE §5
# would let it be 30 s; what keyservice alone knows of an erasure would be late by so much.
LONGEST_KEPT_SECONDS = 2
CHALLENGE_SIZE = 32


class Kind(Enum):
    """What the sealed keys are for; one kind never passes for the other."""

    RECORD_KEYS = 1
    WRITE_KEYS = 2


@dataclass(frozen=True, slots=True)
class SealedBundle:
    """Sealed keys on the wire.

    Args:
        sealed: HPKE ciphertext.
        signature: Of keyservice's leaf.
        chain: keyservice's certificates, DER, leaf first.
    """

    sealed: bytes
    signature: bytes
    chain: tuple[bytes, ...]


class ReleasedKey(NamedTuple):
    """One key for one item of a batch.

    Args:
        version: The record version that keyservice released it for.
        key_version: The version of the connection key.
        salt: The record's salt, 32 bytes.
        material: Key, nonce and commitment, 76 bytes.
        keep_seconds: For how long its consumer may keep it, to open the same version again; 0: it is used once.
    """

    version: int
    key_version: int
    salt: bytes
    material: Secret
    keep_seconds: int = 0


def thumbprint(public_key: bytes) -> str:
    """Gives the thumbprint of an HPKE public key: BASE64URL(SHA-256), as RFC 7638 encodes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(public_key).digest()).rstrip(b"=").decode()


def seal_to_consumer(
    public_key: bytes,
    challenge: bytes,
    kind: Kind,
    keys: Iterable[tuple[int, ReleasedKey]],
    signing_key: ec.EllipticCurvePrivateKey,
    chain: tuple[bytes, ...],
) -> SealedBundle:
    """Seals the keys of a batch to one consumer and signs them. The materials are destroyed.

    Raises:
        GrantError: The public key or the challenge has another size.
    """
    if len(public_key) != 32 or len(challenge) != CHALLENGE_SIZE:
        raise GrantError
    payload = bytearray()
    for index, key in keys:
        with key.material:
            payload += _ENTRY.pack(
                index, key.version, key.key_version, key.keep_seconds, key.salt, key.material.expose()
            )
    info = _info(kind, challenge)
    sealed = _SUITE.encrypt(payload, X25519PublicKey.from_public_bytes(public_key), info=info)
    payload[:] = bytes(len(payload))
    signature = signing_key.sign(_signed(info, public_key, sealed), ec.ECDSA(hashes.SHA256()))
    return SealedBundle(sealed, signature, chain)


class ConsumerKey:
    """A consumer's HPKE key pair: made when the process starts, kept in its memory alone."""

    __slots__ = ("_private", "public", "thumbprint")

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()
        self.thumbprint = thumbprint(self.public)

    @staticmethod
    def new_challenge() -> bytes:
        """Gives the challenge of one call."""
        return os.urandom(CHALLENGE_SIZE)

    def open_keys(  # required means argument: each of these is checked
        self,
        bundle: SealedBundle,
        challenge: bytes,
        kind: Kind,
        anchor: TrustAnchor,
        keyservice: str,
        now: dt.datetime,
    ) -> Mapping[int, ReleasedKey]:
        """Opens keys sealed to this consumer and gives them by the index of their item.

        Args:
            bundle: What the store relayed.
            challenge: What this consumer sent.
            kind: What was asked for.
            anchor: Our CA.
            keyservice: The SPIFFE path of the keyservice that has to have sealed it.
            now: With time zone.

        Raises:
            GrantError: It was not sealed by that keyservice, for this key, as the answer to this challenge.
        """
        leaf, path = anchor.verify_chain(bundle.chain, now)
        public_key = leaf.public_key()
        info = _info(kind, challenge)
        if path != keyservice or not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise GrantError
        try:
            public_key.verify(bundle.signature, _signed(info, self.public, bundle.sealed), ec.ECDSA(hashes.SHA256()))
            payload = bytearray(_SUITE.decrypt(bundle.sealed, self._private, info=info))
        except (InvalidSignature, InvalidTag, ValueError):
            raise GrantError from None
        if len(payload) % _ENTRY.size:
            raise GrantError
        keys = {
            index: ReleasedKey(version, key_version, salt, Secret(material), min(seconds, LONGEST_KEPT_SECONDS))
            for index, version, key_version, seconds, salt, material in _ENTRY.iter_unpack(payload)
        }
        payload[:] = bytes(len(payload))
        return keys


def _info(kind: Kind, challenge: bytes) -> bytes:
    return b"authpipe keys v1" + bytes([kind.value]) + challenge


def _signed(info: bytes, public_key: bytes, sealed: bytes) -> bytes:
    return info + public_key + hashlib.sha256(sealed).digest()
