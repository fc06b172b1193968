"""What grpc's core takes from the environment, once, when it is imported; what is set there already stands.

Its event engine carries a message in 430 µs there and back on a stream that stands, with 560 µs of CPU on both ends; the pollers
that it had before, in 290 and 410: fewer threads wake each other. What that is
of whole requests stands in docs/decisions/0009-grpc-without-its-event-engine.md.
"""

from __future__ import annotations

import os

# grpc's own lines are text that nobody has checked; what matters reaches us as errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
