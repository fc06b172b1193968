"""Named steps of a process at which a test makes something happen: the process dies, or waits until something else did.

A mutant calls `reach` at each step. A file names the step that is armed, what is done there, and after how many that came by;
it is looked at each time, so that a process need not be started anew for the next step.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

# Set by whoever starts the mutant.
ARMED = "AUTHPIPE_FAILPOINT"
_PAUSE_SECONDS = 0.6
_passed = 0


def arm(file: Path, step: str, act: str, after: int) -> None:
    """Arms a step.

    Args:
        file: The file.
        step: Its name.
        act: `die`, or `wait`: the first that gets there says so and waits a moment.
        after: How many come by before.
    """
    file.with_suffix(".reached").unlink(missing_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"step": step, "act": act, "after": after}))
    new.rename(file)


def disarm(file: Path) -> None:
    """Disarms whatever is armed."""
    file.unlink(missing_ok=True)


def reached(file: Path) -> bool:
    """Says whether the armed step was reached."""
    return file.with_suffix(".reached").exists()


async def reach(step: str) -> None:
    """Is called by a mutant at a step."""
    global _passed  # noqa: PLW0603  # one process, one count
    file = Path(os.environ[ARMED])
    try:
        armed = json.loads(file.read_text())  # noqa: ASYNC240  # a test's
    except (OSError, ValueError):
        return
    if armed["step"] != step or reached(file):
        return
    _passed += 1
    if _passed <= armed["after"]:
        return
    _passed = 0
    file.with_suffix(".reached").touch()
    if armed["act"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(_PAUSE_SECONDS)
