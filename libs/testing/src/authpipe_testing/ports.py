"""Free ports on loopback, from outside the range that the kernel takes for outgoing connections.

A server that is killed and comes back must find its port as it left it. With a port from the kernel's own range it may not:
whoever calls it meanwhile gets an outgoing port from that range, sometimes that very one (and is then connected to itself).
"""

from __future__ import annotations

import atexit
import contextlib
import random
import socket
import sys

_FIRST, _LAST = 10_000, 32_000
# Held as long as this process lives, so that two runs beside each other never choose the same.
_HELD: list[socket.socket] = []


@atexit.register
def _give_back() -> None:
    for each in _HELD:
        each.close()


def free_ports(count: int) -> list[int]:
    """Gives ports that nobody listens on now, each once, and none that another process of tests was given.

    Raises:
        RuntimeError: There are not so many.
    """
    found: list[int] = []
    for port in random.sample(range(_FIRST, _LAST), _LAST - _FIRST):
        if len(found) == count:
            return found
        if is_free(port) and _hold(port):
            found.append(port)
    raise RuntimeError(f"There are not {count} free ports between {_FIRST} and {_LAST}.")


def is_free(port: int) -> bool:
    """Says whether nobody listens on a port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _hold(port: int) -> bool:
    """Takes a name that only one process has at a time and the kernel takes back when it ends (unix(7), abstract sockets)."""
    if sys.platform != "linux":
        return True
    holder = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(OSError):
        holder.bind(f"\0authpipe-port-{port}")
        _HELD.append(holder)
        return True
    holder.close()
    return False
