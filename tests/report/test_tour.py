"""The notebook of the tour: it runs from its first cell to its last, and what is committed with it is its outputs."""

import json
import re
from pathlib import Path

import pytest

from ablation_core.storage import PROJECT

TOUR = PROJECT / "docs" / "guide" / "tour.ipynb"
MOST_BYTES = 450_000


def outputs(cells: list[dict]) -> list[set[str]]:
    """The kinds of each code cell's results; what is written to standard error, such as a bar, is none."""
    return [
        {kind for output in cell["outputs"] for kind in output.get("data", {})}
        for cell in cells
        if cell["cell_type"] == "code"
    ]


def test_the_committed_outputs_are_whole_small_and_name_no_machine() -> None:
    text = TOUR.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    assert len(text) <= MOST_BYTES
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", text)
    numbers = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert numbers == list(range(1, len(numbers) + 1)), "run from top to bottom"
    assert sum("text/html" in kinds for kinds in outputs(cells)) >= 5
    assert not any(output["output_type"] == "error" for cell in cells for output in cell.get("outputs", []))


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    notebook = nbformat.read(TOUR, as_version=4)
    committed = outputs(notebook.cells)
    assert "predictions=400)" in notebook.cells[1]["source"]
    notebook.cells[1]["source"] = notebook.cells[1]["source"].replace("predictions=400)", "predictions=120)")
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert outputs(notebook.cells) == committed
    drawing = (tmp_path / "head-5.2.svg").read_text(encoding="utf-8")
    assert drawing.startswith("<svg") and "python-docs" in drawing
    assert (tmp_path / "ioi.pdf").read_bytes().startswith(b"%PDF")
