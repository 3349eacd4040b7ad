from __future__ import annotations

from pathlib import Path

import pytest

from mdprop_ext.recipes.run_log import LOG_FILE, RunLog, read_history
from mdprop_ext.recipes.trainer import Record

RECORDS: list[Record] = [{"step": step, "loss": step / 2} for step in range(1, 5)]


def test_a_log_goes_on_where_the_state_was_saved(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []
    with RunLog(tmp_path) as log:
        for record in RECORDS:
            log.add(record)
    assert read_history(tmp_path) == log.history == RECORDS
    with RunLog(tmp_path, steps_done=2) as log:
        log.add(RECORDS[3])
    assert read_history(tmp_path) == [*RECORDS[:2], RECORDS[3]]
    with RunLog(tmp_path) as log:
        log.add(RECORDS[0])
    assert read_history(tmp_path) == RECORDS[:1]


def test_a_log_that_ends_too_early(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).write_text('{"step": 1}\n{"ste')
    assert read_history(tmp_path) == [{"step": 1}]
    with pytest.raises(ValueError, match=r"log.jsonl' ends at step 1, before the state to resume from"):
        RunLog(tmp_path, steps_done=2)
    with pytest.raises(ValueError, match="ends at step 0"):
        RunLog(tmp_path / "elsewhere", steps_done=1)
