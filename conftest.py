"""Collects, for `make promises`, which tests carry which promise or case and how they ended; ends a stack of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

_RESULTS = pytest.StashKey[dict[str, dict[str, object]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises-file", type=Path, default=None, help="Where to write what each marked test showed.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        marks = [f"{mark.args[0]}" for mark in item.iter_markers("promise")]
        marks += [f"case-{mark.args[0]}" for mark in item.iter_markers("case")]
        if marks:
            config.stash[_RESULTS][item.nodeid] = {"shows": marks, "passed": False}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and _current is not None:
        entry = _current.stash[_RESULTS].get(report.nodeid)
        if entry is not None:
            entry["passed"] = report.passed


_current: pytest.Config | None = None


def pytest_sessionstart(session: pytest.Session) -> None:
    global _current  # pytest gives reports without their config
    _current = session.config


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.getoption("--promises-file")
    if file is not None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(session.config.stash[_RESULTS], indent=1))
