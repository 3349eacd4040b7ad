"""A pytest plugin that records each test as it ends, and stops in time or when the card no longer answers.

A kernel that reads out of bounds breaks all later calls of its process. The test stage therefore starts another one for
the tests that are left, and this plugin leaves out those that the record holds already.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.gpu_check.card import card_is_lost
from benchmarks.gpu_check.process import RECORD_VARIABLE, append, deadline_told, read_record
from benchmarks.gpu_check.restarts import started


class Recorder:
    """Writes ``{"collected": ids}``, ``{"started": id}`` and ``{"test": id, "outcome", "seconds", "message"}``."""

    def __init__(self, record: Path) -> None:
        self._deadline = deadline_told()
        self._seen = started(read_record(record))
        self._session: pytest.Session | None = None
        self._failed = False

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        done = [item for item in items if item.nodeid in self._seen]
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item.nodeid not in self._seen]
        append({"collected": [item.nodeid for item in items]})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            append({"test": report.nodeid, "outcome": "failed", "seconds": 0.0, "message": report.longreprtext[-2000:]})

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        append({"started": nodeid})
        self._failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # One entry a test: of its call, or of the set-up or tear-down that went wrong.
        if report.when != "call" and report.outcome == "passed":
            return
        message = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        text = message if report.skipped else message[-2000:]
        append({"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration, "message": text})
        self._failed |= report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        assert self._session is not None
        if self._deadline.left() == 0:
            self._session.shouldstop = "the time is up"
        elif self._failed and card_is_lost():
            self._session.shouldstop = f"the card no longer answers after {nodeid}"


def pytest_configure(config: pytest.Config) -> None:
    record = os.environ.get(RECORD_VARIABLE)
    if record is not None:
        config.pluginmanager.register(Recorder(Path(record)))
