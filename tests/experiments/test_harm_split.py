"""What a constant's harm on a task is made of: against single ablations put together here, and by hand."""

import numpy as np
import pytest

from ablation_core import ablate, load_data
from ablation_core.cli.text.experiments import format_result
from ablation_core.engine.metrics import METRICS
from ablation_core.experiments.harm_split import PARTS, mean_parts, parts_of, reference_of
from ablation_core.experiments.results import AblationResult
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.charts import method_charts
from ablation_core.report.tasks.harm import harm_frame, harm_sentence
from ablation_core.saved.form import decode, encode
from ablation_core.stats.intervals import mean_tests

DIFFERENCE = METRICS["logit_difference"]
METHODS = ("counterfactual", "mean-positional", "mean", "zero")


def test_parts_are_paired_differences_of_single_ablations(
    opt_mini: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablation_core.methods.optimal.TRAINING_PROMPTS", 20)
    data = load_data("task:induction", opt_mini, predictions=8)
    together = ablate(opt_mini, data, "5.1", [*METHODS, "resample-dataset"], statistics="python-docs")
    harm, sequences = {}, None
    for method in METHODS:
        scored = ablate(opt_mini, data, "5.1", method, statistics="python-docs").predictions
        before, after = scored.baseline["logit_difference"], scored.ablated[method]["logit_difference"]
        harm[method], sequences = before - after, scored.sequence  # a fall is harm
    expected = {
        "counterfactual": harm["counterfactual"],
        "information": harm["mean-positional"] - harm["counterfactual"],
        "position": harm["mean"] - harm["mean-positional"],
        "displacement": harm["zero"] - harm["mean"],
    }
    rows = {row["method"]: row for row in together.to_dict()["results"]}
    found = rows["zero"]["split"]
    assert (found.pop("metric"), found.pop("reference")) == ("logit_difference", "mean")
    for name, values in expected.items():
        (test,) = mean_tests(values[None], sequences, together.seed)
        assert found[name] == pytest.approx(vars(test.interval), abs=1e-6)
    assert sum(part["mean"] for part in found.values()) == pytest.approx(
        -rows["zero"]["change"]["logit_difference"]["mean"]
    )
    assert rows["mean"]["split"]["displacement"] == {"mean": 0, "low": 0, "high": 0}
    assert all("split" not in rows[name] for name in ("counterfactual", "mean-positional", "resample-dataset"))
    assert "for what the counterfactual changes" in format_result(together)

    document, arrays = encode(together)
    assert decode(AblationResult, document, arrays).to_dict() == together.to_dict()
    for row in document["results"]:
        del row["split"]  # a result that was saved before there were splits
    assert all(row.split is None for row in decode(AblationResult, document, arrays).results)


def test_optimal_constants_part_position_from_displacement_where_they_were_learned() -> None:
    harms = {"counterfactual": 1.0, "mean-positional": 1.5, "optimal": 1.75, "mean": 2.0, "zero": 4.0}
    assert reference_of(harms) == "optimal"
    assert parts_of(harms.__getitem__, "zero", "optimal") == [1.0, 0.5, 0.25, 2.25]
    falls = {name: -value for name, value in harms.items()}
    assert mean_parts(falls, worse=-1)["mean"] == [1.0, 0.5, 0.25, 0.25]
    assert set(mean_parts(falls, worse=-1)) == {"optimal", "mean", "zero"}
    for missing in ("counterfactual", "mean-positional"):
        assert not mean_parts({name: value for name, value in falls.items() if name != missing}, worse=-1)
    assert reference_of(["counterfactual", "mean-positional", "zero"]) is None


def test_the_sentence_and_the_bar_by_hand() -> None:
    falls = {"counterfactual": -1.0, "mean-positional": -1.5, "mean": -1.25, "zero": -4.0}
    assert harm_sentence(falls, "zero", DIFFERENCE) == (
        "By zero the logit difference falls by 4.000 nats: +1.000 for what the counterfactual changes, +0.500 for other "
        "information, −0.250 for position, +2.750 for displacement from the mean (+: harm)."
    )
    assert harm_sentence(falls, "counterfactual", DIFFERENCE) == ""
    frame = harm_frame(falls, DIFFERENCE)
    assert [tuple(row) for row in frame[frame["kind"] == "zero"].itertuples(index=False)] == [
        ("zero", part, order, value)
        for order, (part, value) in enumerate(zip(PARTS, (1, 0.5, -0.25, 2.75), strict=True))
    ]
    shares = harm_frame({name: value / 10 for name, value in falls.items()}, METRICS["accuracy"])
    np.testing.assert_allclose(shares[shares["kind"] == "zero"]["value"], [10, 5, -2.5, 27.5])
    drawn = method_charts.harm_parts(frame, "harm", PARTS).to_dict()
    assert drawn["encoding"]["color"]["scale"]["domain"] == list(PARTS)
    assert harm_frame({"zero": -1.0}, DIFFERENCE).empty
