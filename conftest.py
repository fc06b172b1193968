"""Collects, for `make promises`, which tests carry which promise or case and how they ended; keeps what shares a system together.

Tests run in parallel where they can: those of the whole system share one for each process, in which they run one after the other,
all others beside them. What takes longest begins first.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("authpipe", parent=settings.default, deadline=None)
settings.load_profile("authpipe")

_RESULTS: dict[str, dict[str, object]] = {}
_SHOWS = "shows"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises-file", type=Path, default=None, help="Where to write what each marked test showed.")


def pytest_itemcollected(item: pytest.Item) -> None:
    marks = [f"{mark.args[0]}" for mark in item.iter_markers("promise")]
    marks += [f"case-{mark.args[0]}" for mark in item.iter_markers("case")]
    # Travels with the report, from the process that ran the test.
    item.user_properties.append((_SHOWS, marks))


# Files of those folders below that have a system of their own, or need none: too long to stand in line with the others.
_ALONE = {"tests/keys/test_under_load.py", "tests/keys/test_kms_conformance.py"}
# Folders whose tests share a system, which takes its time to come up.
_TOGETHER = {
    "access": "attacks on the whole system",
    "breach": "attacks on the whole system",
    "e2e": "the whole system",
    "log": "the whole system",
    "canary": "the whole system",
    "chaos": "chaos",
    "keys": "keys",
}
# What takes longest, first.
_FIRST = (
    "attacks on the whole system",
    "the whole system",
    "chaos",
    "keys",
    "tests/keys/test_under_load.py",
    # A process is given what comes next while it is at its last two tests: between two of one test each stands one of many.
    "tests/keys/test_kms_conformance.py",
    "services/audit/tests/wire/test_crashes.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {group: rank for rank, group in enumerate(_FIRST)}
    items.sort(key=lambda item: ranks.get(_group(item.nodeid), len(ranks)))


def _group(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    top, _, rest = file.partition("/")
    shares = top == "tests" and file not in _ALONE
    return _TOGETHER.get(rest.partition("/")[0], file) if shares else file


class _Together(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """Gives tests that share a system to one process, and every other file to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


# What brings a system up. It stops behind the last test that shares it: one that rests takes a fifth of a core from the others.
_SYSTEMS = ("stack", "chaos", "keys")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or _group(nextitem.nodeid) == _group(item.nodeid):
        return
    for name in _SYSTEMS:
        # As pytest does at the end of a session; a test that wants it later gets a new one.
        for system in item.session._fixturemanager.getfixturedefs(name, item) or ():  # noqa: SLF001  # nothing else ends one
            system.finish(item._request)  # type: ignore[attr-defined]  # noqa: SLF001  # likewise


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
