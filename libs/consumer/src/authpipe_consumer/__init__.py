"""What edge and worker share: they are the consumers, the only ones in whose memory a record and its key meet.

A consumer asks the store; the store relays what keyservice sealed to the consumer's key. Nobody else depends on this.
"""

from authpipe_consumer.client import Opened, RecordClient, SealedRecord, Sealing, Want, WriteKey

__all__ = ["Opened", "RecordClient", "SealedRecord", "Sealing", "Want", "WriteKey"]
