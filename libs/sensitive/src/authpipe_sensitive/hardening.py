"""Makes a process hard to read from outside: not dumpable, no core files.

`PR_SET_DUMPABLE 0` also takes `/proc/PID/mem` and ptrace from processes of the same user (prctl(2)).
"""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def harden_process() -> None:
    """Forbids core files and memory reads by others of the same user, for this process.

    Raises:
        OSError: The kernel refused; the process must not start.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "The kernel refused to make this process undumpable.")
