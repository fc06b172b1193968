"""A store and its keyservice at the wire, for each file of tests."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from authpipe.types.v1 import records_pb2 as pb
from authpipe_consumer import RecordClient, StoreCaller
from authpipe_envelope import Context, RecordClass, RecordKey, derive_record_key, seal_record
from authpipe_grants import ConsumerKey, Kind, ReleasedKey, TrustAnchor, seal_to_consumer
from authpipe_sensitive import Secret
from authpipe_testing.ca import CertificateAuthority
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

TOKEN = b"the-token-that-is-kept-sealed"


class OneRecordStore:
    """A store and its keyservice at the wire: real records, keys that are really sealed; it counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.ca = CertificateAuthority(folder, "ours")
        made = self.ca.issue(folder, "ks", common_name="x", uris=("spiffe://test/keyservice/user-credentials",))
        key = load_pem_private_key(made.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._signing = key
        chain = x509.load_pem_x509_certificates(made.certificate.read_bytes())
        self._chain = tuple(each.public_bytes(Encoding.DER) for each in chain)
        self.connection_key = Secret(os.urandom(32))
        self.keep_seconds = 2
        self.reads, self.reuses = 0, 0
        self.allow: Callable[[pb.ReuseRecordsRequest], Any] = lambda request: [True] * len(request.items)
        self.write(1)

    def write(self, version: int) -> None:
        """Stores a version."""
        salt = os.urandom(32)
        self._key = derive_record_key(self.connection_key, 1, salt, int(RecordClass.ACCESS))
        self._salt, self._version = salt, version
        context = Context(
            deployment="d",
            region="eu",
            key_domain="user-credentials",
            workspace="ws",
            connection="con",
            record_class=int(RecordClass.ACCESS),
            version=version,
            provider="acme",
            hosts=bytes(32),
        )
        self._material = bytes(self._key.material.expose())
        key = RecordKey(Secret(self._material), 1, salt)
        self.record = seal_record(key, context, TOKEN + b"-%d" % version)

    async def call_idempotent(self, _: object, request: Any) -> Any:
        """Answers as a store does."""
        await asyncio.sleep(0)
        if isinstance(request, pb.ReuseRecordsRequest):
            self.reuses += len(request.items)
            return pb.ReuseRecordsResponse(allowed=self.allow(request))
        self.reads += len(request.items)
        keys = [
            (index, ReleasedKey(self._version, 1, self._salt, Secret(self._material), self.keep_seconds))
            for index in range(len(request.items))
        ]
        sealed = seal_to_consumer(
            request.consumer_public_key, request.challenge, Kind.RECORD_KEYS, keys, self._signing, self._chain
        )
        ref = pb.RecordRef(workspace_id="ws", connection_id="con", record_class=1)  # type: ignore[arg-type]
        record = pb.SealedRecord(
            ref=ref, version=self._version, record=self.record, provider="acme", hosts_digest=bytes(32)
        )
        return pb.GetRecordsResponse(
            items=[pb.FoundRecord(record=record) for _ in request.items],
            keys=pb.SealedKeys(sealed=sealed.sealed, signature=sealed.signature, chain=sealed.chain),
        )


@pytest.fixture
def token() -> bytes:
    """What is in the first version of its record."""
    return TOKEN + b"-1"


@pytest.fixture
def store(tmp_path: Path) -> OneRecordStore:
    return OneRecordStore(tmp_path)


@pytest.fixture
def make_client(store: OneRecordStore) -> Callable[[Any], RecordClient]:
    """Makes a consumer that calls a store, or what stands before it."""
    anchor = TrustAnchor(store.ca.certificate_file.read_bytes(), "test")
    made: Any = StoreCaller
    clock = lambda: dt.datetime.now(dt.UTC)  # noqa: E731
    return lambda peer: RecordClient(made(peer, ConsumerKey(), anchor, "d", "eu", "user-credentials", clock))
