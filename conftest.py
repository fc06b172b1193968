"""Collects, for `make promises`, which tests carry which promise or case and how they ended; keeps what shares a system together.

Tests run in parallel where they can: those of the whole system share one for each process, in which they run one after the other,
all others beside them. What takes longest begins first.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

_RESULTS: dict[str, dict[str, object]] = {}
_SHOWS = "shows"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises-file", type=Path, default=None, help="Where to write what each marked test showed.")


def pytest_itemcollected(item: pytest.Item) -> None:
    marks = [f"{mark.args[0]}" for mark in item.iter_markers("promise")]
    marks += [f"case-{mark.args[0]}" for mark in item.iter_markers("case")]
    # Travels with the report, from the process that ran the test.
    item.user_properties.append((_SHOWS, marks))


# Folders whose tests share a system, or have one of their own that takes its time to come up.
_TOGETHER = {
    "access": "attacks on the whole system",
    "breach": "attacks on the whole system",
    "e2e": "the whole system",
    "log": "the whole system",
    "canary": "the whole system",
    "chaos": "chaos",
    "keys": "keys",
}


class _Together(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """Gives tests that share a system to one process, and every other file to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        top, _, rest = file.partition("/")
        return _TOGETHER.get(rest.partition("/")[0], file) if top == "tests" else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return _Together(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    marks = dict(report.user_properties).get(_SHOWS)
    if not marks:
        return
    entry = _RESULTS.setdefault(report.nodeid, {_SHOWS: marks, "passed": False})
    if report.when == "call":
        entry["passed"] = report.passed


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.getoption("--promises-file")
    if file is not None and not hasattr(session.config, "workerinput"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(_RESULTS, indent=1))
