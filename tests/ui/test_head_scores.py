"""Scores as colours of the Head map, and a score against harm, with each bundled model."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from ablation_core import head_scores
from ablation_core.errors import ModelError
from ablation_core.heads.kinds import SCORES
from ablation_core.progress import finished
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.server.lru import LRU
from ablation_core.ui.export_row import ExportContent
from ablation_core.ui.heads.scores import with_scores
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.shared import SEED, shared_data, shared_jobs, shared_model
from tests.ui.test_pages import charts, text_of
from tests.ui.test_run_pages import TWO, measured, opened

HEADS = ((0, 0), (1, 1), (2, 2), (3, 3), (5, 4))
OFFERED = {
    "opt-mini": {"previous token", "duplicate token", "induction", "first token", "self", "entropy", "distance"},
    "roberta-mini": {"previous token", "duplicate token", "first token", "self", "entropy", "distance"},
    "vit-mini": {"first token", "self", "entropy", "distance"},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(run_controls, "FOLDER", tmp_path)
    yield tmp_path
    for job in list(shared_jobs()._jobs.values()):
        job.stop()
        job.wait(60)


def swept(name: str, folder: Path) -> SweepResult:
    model, data, statistics = measured(name)
    return finished(sweep_steps(model, data, SweepSpec(TWO, heads=HEADS, random_sets=1), statistics, folder))


def points(at: AppTest, chart: int) -> dict[str, tuple[float, float]]:
    """Head → score and effect, as a scatter draws them."""
    from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df

    for data in at.get("vega_lite_chart")[chart].proto.datasets:
        frame = convert_arrow_bytes_to_pandas_df(data.data.data)
        if "across" in frame:
            return {row.label: (row.across, row.up) for row in frame.itertuples()}
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFERED)
def test_the_map_shows_scores_and_each_against_harm(name: str, folder: Path) -> None:
    result = swept(name, folder)
    at = opened("head_map", model=name, colour="entropy")
    assert not at.exception and not at.error
    assert set(at.selectbox(key="colour").options) == {"effect", *OFFERED[name]}
    assert "**Entropy**: mean entropy of a position's attention" in text_of(at)
    model = shared_model(name)
    scores = head_scores(model, shared_data(model, result.description["data"]["ref"], 500, "evaluation"), SEED)
    table = at.dataframe[0].value.set_index("head")["entropy"]
    assert set(table.index) >= set(result.heads)  # the others are estimated as time goes
    for head, value in table.items():
        assert value == pytest.approx(float(scores.entropy[tuple(map(int, head.split(".")))]), rel=1e-4)
    bare = ExportContent("", "", "", {}, {}, {})
    exported = with_scores(bare, SimpleNamespace(info=model.info), SCORES["entropy"], scores)
    assert [len(table()) for table in exported.tables.values()] == [36]
    drawn = exported.charts["Every head, Entropy"].draw().to_dict()
    assert {row["value"] for row in next(iter(drawn["datasets"].values()))} == set(map(float, scores.entropy.ravel()))
    for method in ("mean", "zero"):
        if method == "zero":  # the sidebar's method came first
            at.pills(key="scored by").set_value(method).run()
        (scatter,) = (found for number in range(len(charts(at))) if (found := points(at, number)))
        for head, change in result.changes(method, "loss").items():
            across = float(scores.entropy[tuple(map(int, head.split(".")))])
            assert scatter[head] == pytest.approx((across, change), rel=1e-4), (method, head)


def test_a_score_that_another_kind_of_model_had_gives_way(folder: Path) -> None:
    swept("vit-mini", folder)
    at = opened("head_map", model="vit-mini", colour="induction")
    assert not at.exception and at.selectbox(key="colour").value == "effect"
    assert "against effect" not in text_of(at) and "Square-root colour scale" in text_of(at)


def test_a_model_whose_attention_cannot_be_seen_gets_its_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise ModelError("Layer 0 of opt-mini does more than weighting values.")

    swept("opt-mini", folder)
    monkeypatch.setattr("ablation_core.heads.scores.head_scores", refused)
    monkeypatch.setattr("ablation_core.ui.heads.computed._kept", lambda: LRU(1))
    at = opened("head_map", model="opt-mini", colour="self")
    assert not at.exception and "does more than weighting values" in at.info[0].value
    assert "change of loss" in str(charts(at)), "the effect is shown instead"
