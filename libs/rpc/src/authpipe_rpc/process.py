"""How every process of ours starts and stops."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from pydantic import BaseModel, ValidationError

from authpipe_sensitive import Label, configure_logs, get_log, harden_process

ConfigT = TypeVar("ConfigT", bound=BaseModel)


class Background:
    """Work beside serving: a relay, a sweep, a watch.

    Work that ends by an error ends the process. Whoever runs it starts it again; going on quietly without it would be
    worse: events that nobody delivers, connections that nobody sweeps.

    Args:
        stop: Set when the process is to stop; set by this class when some work has failed.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Starts work that ends when the process is told to stop."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            get_log().error("work beside serving failed", work=Label(task.get_name().replace(" ", "-")), error=error)
            self._stop.set()

    async def finish(self) -> None:
        """Waits until all of it has ended.

        Raises:
            SystemExit: Some of it had failed.
        """
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        if any(isinstance(each, BaseException) for each in ended):
            raise SystemExit("Work beside serving failed; the log says which.")


def run_process(
    name: str,
    config_class: type[ConfigT],
    serve: Callable[[ConfigT, asyncio.Event], Awaitable[None]],
    arguments: list[str] | None = None,
) -> None:
    """Reads the configuration file named on the command line, hardens the process, and serves until told to stop.

    Args:
        name: What the process is called in logs.
        config_class: Its frozen settings.
        serve: Starts everything, waits for the event, stops everything.
        arguments: The command line; the process's own by default.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        sys.exit(f"Usage: {name} CONFIG.json — one file with all settings; secrets in it are paths.")
    harden_process()
    try:
        config = config_class.model_validate_json(Path(given[0]).read_bytes())
    except OSError:
        sys.exit("The configuration file cannot be read.")
    except ValidationError as error:
        wrong = "; ".join(".".join(map(str, each["loc"])) + ": " + each["type"] for each in error.errors())
        sys.exit(f"The configuration file is wrong: {wrong}")
    level = getattr(config, "log_level", "info")
    configure_logs(Label(name), level)

    # What imports made stays for good: the collector need not walk it with every batch.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        get_log().info("starting")
        await serve(config, stop)
        get_log().info("stopped")

    uvloop.run(main())
