"""The file of finished units; damaged lines and killed writers are tested in `integration/test_faults.py`."""

from pathlib import Path

import pytest

from ablation_core.runs.ledger import open_ledger

RUN = {"model": {"fingerprint": "f"}}


def test_a_run_without_a_finished_unit_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError), open_ledger(tmp_path, "test", RUN):
        raise KeyError
    assert not list(tmp_path.rglob("*.jsonl"))


def test_what_was_finished_before_a_run_is_refused_stays(tmp_path: Path) -> None:
    with open_ledger(tmp_path, "test", RUN) as ledger:
        ledger.add("a", {"value": 1})
    with pytest.raises(KeyError), open_ledger(tmp_path, "test", RUN):
        raise KeyError
    with open_ledger(tmp_path, "test", RUN) as ledger:
        assert ledger.done == {"a": {"value": 1}}
