"""Makes ap1.json from docs/envelope.md and `cryptography`'s primitives alone: nothing of Authpipe is imported here.

    python tests/vectors/make_ap1.py > tests/vectors/ap1.json

Written from the document, by its tables, so that the document is shown to be enough. Inputs are derived by SHA-256 from
the name of the vector: anybody can make them again.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import unicodedata

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# Names, deployments, workspaces and so on of each vector; class, version, key version; the plaintext.
VECTORS = [
    ("an API key", ("prod", "eu", "user-credentials", "ws_1", "con_1"), 3, 1, 1, "acme", ["api.acme.example"], b"sk_1"),
    ("an empty plaintext", ("prod", "eu", "user-credentials", "ws_1", "con_2"), 4, 2, 1, "acme", [], b""),
    ("63 bytes: one block", ("prod", "eu", "user-credentials", "ws_1", "con_3"), 1, 3, 1, "a", ["h"], b"x" * 63),
    ("64 bytes: two blocks", ("prod", "eu", "user-credentials", "ws_1", "con_3"), 1, 4, 1, "a", ["h"], b"x" * 64),
    ("a padding byte at the end", ("d", "us", "client-secrets", "ws_2", "pc_1"), 6, 1, 7, "b", ["h"], b"x\x80\x00\x00"),
    (
        "text that is composed",
        ("d", "eu", "user-credentials", "ws_é", "con_ü"),
        2,
        9,
        4294967295,
        "ñ",
        ["h"],
        b"y" * 200,
    ),
    (
        "a large version",
        ("d", "eu", "user-credentials", "ws_3", "con_4"),
        5,
        2**63 - 1,
        2,
        "p",
        ["b.x", "a.x"],
        b"z" * 4096,
    ),
]


def text(value: str) -> bytes:
    """A text field: UTF-8, normalisation form C."""
    return unicodedata.normalize("NFC", value).encode()


def hosts(names: list[str]) -> bytes:
    """SHA-256 over the set of hosts: each lower case, once, in order, with its length in 4 bytes before it."""
    encoded = b"".join(
        struct.pack(">I", len(name)) + name for name in sorted({name.lower().encode() for name in names})
    )
    return hashlib.sha256(encoded).digest()


def context(where: tuple[str, ...], record_class: int, version: int, provider: str, names: list[str]) -> bytes:
    """Nine fields, ascending tags: tag (1), size (4), value."""
    values = [*map(text, where), bytes([record_class]), struct.pack(">Q", version), text(provider), hosts(names)]
    return b"".join(struct.pack(">BI", tag, len(value)) + value for tag, value in enumerate(values, 1))


def record(ck: bytes, salt: bytes, key_version: int, record_class: int, bound: bytes, plaintext: bytes) -> bytes:
    """Header, ciphertext, tag."""
    info = b"authpipe AP1 record" + bytes([1, 1, record_class])
    derived = HKDF(hashes.SHA512(), 76, salt, info).derive(ck)
    key, nonce, commitment = derived[:32], derived[32:44], derived[44:]
    header = b"AP" + bytes([1, 1]) + struct.pack(">I", key_version) + salt + commitment
    padded = plaintext + b"\x80"
    padded += bytes(-len(padded) % 64)
    return header + AESGCM(key).encrypt(nonce, padded, header + bound)


def main() -> None:
    """Prints the vectors as JSON."""
    made = []
    for name, where, record_class, version, key_version, provider, names, plaintext in VECTORS:
        ck = hashlib.sha256(b"ck " + name.encode()).digest()
        salt = hashlib.sha256(b"salt " + name.encode()).digest()
        bound = context(where, record_class, version, provider, names)
        made.append(
            {
                "name": name,
                "connection_key": ck.hex(),
                "deployment": where[0],
                "region": where[1],
                "key_domain": where[2],
                "workspace": where[3],
                "connection": where[4],
                "class": record_class,
                "version": version,
                "provider": provider,
                "hosts": names,
                "context": bound.hex(),
                "plaintext": plaintext.hex(),
                "record": record(ck, salt, key_version, record_class, bound, plaintext).hex(),
            }
        )
    json.dump(made, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
