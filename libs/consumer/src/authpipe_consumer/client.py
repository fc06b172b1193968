"""A consumer of one store: opens its records and writes them."""

from __future__ import annotations

from authpipe_consumer.calling import StoreCaller
from authpipe_consumer.reading import RecordReader
from authpipe_consumer.writing import RecordWriter


class RecordClient(RecordReader, RecordWriter):
    """A consumer of one store.

    Args:
        store: The store.
    """

    def __init__(self, store: StoreCaller) -> None:
        RecordReader.__init__(self, store)
        RecordWriter.__init__(self, store)
