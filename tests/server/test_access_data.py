"""What a shared server offers, for every kind of data reference."""

from pathlib import Path

import pytest

from ablation_core.errors import DataError
from ablation_core.server.access import decide
from tests.conftest import watching

OFFERED = "jsonl:/data/notes.jsonl#body parquet:/data/p.parquet folder:/data/texts hf:owner/name images:/data/pictures"


def test_records_that_are_offered_are_offered_as_text_and_everything_else_is_refused_unseen(tmp_path: Path) -> None:
    access = decide({"ABLATION_SHARED": "1", "ABLATION_DATA": OFFERED}, tmp_path)
    assert access.offered_data("text", ()) == tuple(OFFERED.split()[:4])
    assert access.offered_data("images", ()) == ("images:/data/pictures",)
    for ref in OFFERED.split():
        assert access.check_data(ref) == ref
    with watching() as seen:
        for ref in (
            "jsonl:/data/notes.jsonl#other",
            "jsonl:/etc/passwd",
            "csv:/data/notes.csv",
            "folder:/",
            "hf:owner/other",
            "hf:/data",
        ):
            with pytest.raises(DataError, match="does not offer"):
                access.check_data(ref)
    assert not seen.touched
