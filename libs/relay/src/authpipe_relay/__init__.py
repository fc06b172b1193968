"""The relay of a process that has a database: delivers what is in its outbox to audit, signed, in order, at least once.

The same in all of them; whoever has it has the right to call audit.
"""

from authpipe_relay.relay import EventSink, Relay
from authpipe_relay.sink import AuditSink

__all__ = ["AuditSink", "EventSink", "Relay"]
