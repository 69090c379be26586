"""The sentences that say what a result means."""

from dataclasses import replace

import pytest

from ablation_core.experiments.displacement import Displacement
from ablation_core.experiments.noise_floor import SETS, NoiseFloor
from ablation_core.experiments.results import AblationResult, MethodResult, Performance
from ablation_core.methods.optimal import Learning
from ablation_core.report.frames import SPLIT, split_frame
from ablation_core.report.sentences import comparison, loss_split, verdict
from ablation_core.stats.intervals import Interval

NO_EFFECT = "no significant effect in this sample"
ZERO = Interval(0.0, 0.0, 0.0)


def result(
    changes: dict[str, Interval],
    select: str = "3.2",
    neurons: int = 32,
    predictions: int = 12345,
    between: Interval | None = None,
) -> AblationResult:
    """A result whose methods changed the loss so; the other metrics say the opposite, in case one of them is read."""
    performance = Performance({"loss": 3.0, "top1": 0.4, "top10": 0.7, "kl": 0.0})
    rows = tuple(
        MethodResult(
            method,
            performance,
            {"top1": ZERO, "loss": loss, "top10": ZERO, "kl": Interval(9.0, 8.0, 10.0)},
            Displacement(1.0, 0.0),
        )
        for method, loss in changes.items()
    )
    data = {"ref": "made-up", "sequences": 60, "predictions": predictions}
    return AblationResult({"ref": "tiny"}, data, None, select, neurons, 100, 0, performance, rows, between)


def said(mean: float, low: float | None, high: float | None, floor: NoiseFloor | None = None, **about) -> str:
    return verdict(result({"peak": Interval(mean, low, high)}, **about), "peak", floor)


def floor_of(method: str, sets: int = SETS) -> NoiseFloor:
    return NoiseFloor(-0.01, 0.04, sets, bands={method: {"loss": (-0.01, 0.04)}})


@pytest.mark.parametrize(
    ("low", "high"), [(-0.01, 0.02), (0.0, 0.02), (-0.02, 0.0), (0.0, 0.0)], ids=["across", "from", "to", "only"]
)
def test_an_interval_that_holds_zero_is_no_effect(low, high):
    text = said((low + high) / 2, low, high)
    assert NO_EFFECT in text
    assert "raises" not in text
    assert "lowers" not in text


def test_an_interval_above_zero_raises_the_loss():
    text = said(0.05, 0.01, 0.0902)
    assert "raises the loss by 0.0500 nats per prediction (95% interval 0.0100 to 0.0902)" in text
    assert NO_EFFECT not in text
    assert "lowers" not in text


def test_an_interval_below_zero_lowers_the_loss():
    text = said(-0.05, -0.09, -0.01)
    assert "lowers the loss by 0.0500 nats per prediction (95% interval 0.0100 to 0.0900)" in text
    assert NO_EFFECT not in text
    assert "raises" not in text


@pytest.mark.parametrize("bounds", [(-0.01, 0.02), (0.01, 0.02), (None, None)])
def test_every_sentence_names_what_was_ablated_and_how(bounds):
    text = said(0.015, *bounds, select="3.2 5.0:1-4", neurons=1036)
    assert "1,036 neurons (3.2 5.0:1-4) with peak values" in text
    assert "1 neuron (0.0:5) with peak values" in said(0.015, *bounds, select="0.0:5", neurons=1)


def test_the_sample_size_is_named():
    assert "12,345 predictions" in said(0.0, -1.0, 1.0)
    assert "12,345 predictions" in said(2.0, 1.0, 3.0)


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (None, None)])
def test_an_empty_selection_changes_nothing(bounds):
    assert said(0.0, *bounds, select="", neurons=0) == "No neurons are selected, so nothing changes. Pick a head."


def test_a_single_sequence_gives_no_interval():
    text = said(0.0312, None, None)
    assert "+0.0312 nats" in text
    assert "too few sequences for an interval" in text
    for word in (NO_EFFECT, "raises", "lowers", "None"):
        assert word not in text


def test_nan_neither_raises_nor_lowers_the_loss():
    nan = float("nan")
    text = said(nan, nan, nan)
    assert "raises" not in text
    assert "lowers" not in text


def test_the_verdict_is_of_the_method_asked_for():
    both = result({"zero": Interval(0.5, 0.4, 0.6), "mean": Interval(-0.5, -0.6, -0.4)})
    assert "with zero values raises" in verdict(both, "zero")
    assert "with mean values lowers" in verdict(both, "mean")


def test_the_noise_floor_is_given_for_scale():
    text = said(0.05, 0.01, 0.09, floor_of("peak"))
    assert (
        "8 random sets of as many neurons from the same layers, replaced by the same method: −0.0100 to +0.0400."
        in text
    )


def test_a_method_is_compared_with_its_own_floor_only():
    assert "random sets" not in said(0.05, 0.01, 0.09, floor_of("mean"))


def test_a_floor_under_way_is_not_compared():
    assert said(0.05, 0.01, 0.09, floor_of("peak", sets=SETS - 1)) == said(0.05, 0.01, 0.09)


def test_no_effect_is_said_without_a_floor():
    assert said(0.0, -0.1, 0.1, floor_of("peak")) == said(0.0, -0.1, 0.1)


THREE = {"mean": Interval(0.3, 0.2, 0.4), "zero": Interval(0.9, 0.8, 1.0), "peak": Interval(-0.1, -0.2, 0.1)}


def test_comparison_names_the_least_and_the_most_harmful_and_their_paired_distance():
    text = comparison(result(THREE, between=Interval(1.0, 0.7, 1.2)))
    assert (
        text
        == "Smallest increase in loss: peak (−0.1000); largest: zero (+0.9000); paired difference 0.7000 to 1.2000."
    )


def test_comparison_goes_by_the_paired_difference_not_by_overlap():
    overlapping = {"zero": Interval(0.4, 0.2, 0.6), "mean": Interval(0.2, 0.1, 0.3)}
    assert "paired difference 0.1500 to 0.2500." in comparison(result(overlapping, between=Interval(0.2, 0.15, 0.25)))
    parted = {"zero": Interval(0.4, 0.35, 0.6), "mean": Interval(0.2, 0.1, 0.3)}
    assert "not significantly different (paired difference −0.1000 to 0.5000)" in comparison(
        result(parted, between=Interval(0.2, -0.1, 0.5))
    )


def test_comparison_only_of_several_methods_with_intervals_and_a_selection():
    between = Interval(0.2, 0.1, 0.3)
    assert comparison(result({"zero": Interval(0.4, 0.3, 0.6)})) == ""
    assert comparison(result(THREE, select="", neurons=0, between=between)) == ""
    assert comparison(result(THREE, between=Interval(0.2, None, None))) == ""
    assert comparison(result(THREE, between=between)) != ""


def learned(excess: dict[str, Interval | None]) -> AblationResult:
    """A result with learned constants, and what each other method costs beyond them."""
    found = result(dict.fromkeys(["optimal", *excess], Interval(0.3, 0.2, 0.4)))
    rows = tuple(
        replace(
            row,
            learning=Learning(3.0, "mean", 3.4, (3.35, 3.3), 3.3, True) if row.method == "optimal" else None,
            excess=excess.get(row.method),
        )
        for row in found.results
    )
    return replace(found, results=rows)


def test_the_split_of_the_loss_is_between_constants_only():
    found = learned({"mean": Interval(0.05, 0.01, 0.09), "resample-dataset": Interval(-0.12, -0.2, -0.05)})
    text = loss_split(found, "mean")
    assert "still change the loss by +0.3000 nats per prediction" in text
    assert "Extra loss from an unusual value: mean +0.0500 (+0.0100 to +0.0900)." in text
    assert "Extra loss" not in loss_split(found, "resample-dataset"), (
        "that is no constant, and may cost less than the best"
    )
    assert "Extra loss" not in loss_split(found, "optimal")
    frame = split_frame(found)
    assert [tuple(row) for row in frame.itertuples(index=False)] == [
        ("optimal", SPLIT[0], 0.0, 0.3),
        ("mean", SPLIT[0], 0.0, 0.3),
        ("mean", SPLIT[1], 0.3, pytest.approx(0.35)),
    ], "the mean costs 0.05 beyond the 0.3 of the optimal constants; the resampled values are not split"


@pytest.mark.parametrize("mean", [-0.00004, 0.00004])
def test_a_change_that_is_rounded_to_zero_has_no_sign(mean):
    assert "changes the loss by 0.0000 nats" in said(mean, -1.0, 1.0)
