"""A consumer of one store: opens its records and writes them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from authpipe_consumer.calling import StoreCaller, StoreStub
from authpipe_consumer.reading import RecordReader
from authpipe_consumer.writing import RecordWriter
from authpipe_grants import ConsumerKey, TrustAnchor
from authpipe_rpc import Peer


class RecordClient(RecordReader, RecordWriter):
    """A consumer of one store. It is made as `StoreCaller` is."""

    def __init__(  # required means argument
        self,
        peer: Peer[StoreStub],
        key: ConsumerKey,
        anchor: TrustAnchor,
        deployment: str,
        region: str,
        key_domain: str,
        clock: Callable[[], dt.datetime],
    ) -> None:
        store = StoreCaller(peer, key, anchor, deployment, region, key_domain, clock)
        RecordReader.__init__(self, store)
        RecordWriter.__init__(self, store)
