"""What edge and worker share: they are the consumers, the only ones in whose memory a record and its key meet.

A consumer asks the store; the store relays what keyservice sealed to the consumer's key. Nobody else depends on this.
`words` and `payloads` are for rules; `calling`, `reading`, `writing` and `client` are a door.
"""

from authpipe_consumer.calling import StoreCaller
from authpipe_consumer.client import RecordClient

__all__ = ["RecordClient", "StoreCaller"]
