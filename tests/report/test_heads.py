"""One head's verdict, frames and HTML, against what is worked out by hand."""

import math
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest
import vl_convert

from ablation_core.report.heads.examples import value_bars
from ablation_core.report.heads.frames import head_scatter_frame, known_frame
from ablation_core.report.heads.html import before_after
from ablation_core.report.heads.patterns import pattern_chart, pattern_frame
from ablation_core.report.heads.sentences import head_verdict, score_sentence
from ablation_core.runs.sweep_result import SweepResult

NAN = math.nan


def verdict(*rows: tuple[str, float, float, float, float, float]) -> str:
    return head_verdict("2.3", pd.DataFrame(rows, columns=["kind", "mean", "low", "high", "floor_low", "floor_high"]))


def test_a_head_matters_where_every_interval_and_every_band_say_so() -> None:
    said = verdict(("zero", 0.08, 0.06, 0.1, -0.01, 0.02), ("mean", 0.14, 0.1, 0.2, 0.0, 0.03))
    assert said.startswith("**Head 2.3 matters**: without it the loss rises by 0.080 to 0.140 nats per prediction")
    falls = verdict(("zero", -0.08, -0.1, -0.06, -0.01, 0.02))
    assert "does better without head 2.3" in falls and "falls by 0.080" in falls


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("zero", 0.01, -0.01, 0.03, 0.0, 0.005), "not significant in this sample"),
        (("zero", 0.01, 0.005, 0.03, 0.02, 0.04), "no more than without as many random neurons"),
        (("zero", 0.01, 0.005, 0.03, 0.0, 0.02), "no more than without as many random neurons"),
    ],
)
def test_a_head_hardly_matters_where_the_interval_holds_0_or_the_band_the_change(row: tuple, words: str) -> None:
    said = verdict(row, row)
    assert said.startswith("**Head 2.3 hardly matters**") and "at most 0.010" in said and words in said


def test_methods_that_disagree_are_named() -> None:
    said = verdict(
        ("zero", 0.08, 0.06, 0.1, 0.0, 0.02),
        ("mean", 0.01, -0.01, 0.02, 0.0, 0.02),
        ("peak", -0.05, -0.06, -0.04, NAN, NAN),
    )
    assert "it depends on the replacement" in said
    assert (
        "raises the loss with zero +0.080" in said
        and "lowers the loss with peak −0.050" in said
        and "with mean no more" in said
    )


def test_what_has_no_number_or_no_interval_is_said() -> None:
    assert "NaN or infinite" in verdict(("zero", NAN, NAN, NAN, NAN, NAN))
    assert "too few sequences" in verdict(("zero", 0.5, 0.5, 0.5, NAN, NAN))


def row(mean: float) -> dict:
    return {"mean": {"change": {"loss": {"mean": mean, "low": mean - 1, "high": mean + 1}}, "p_values": {}}}


def test_a_band_is_of_the_heads_own_layer() -> None:
    heads = ("0.0", "0.1", "2.0", "2.1")  # layer 1 has none
    sets = {f"random {number}": row(float(number)) for number in range(6)}  # layers in turn: 0, 2, 0, 2, 0, 2
    sweep = SweepResult({"methods": ["mean"]}, None, {head: row(9.0) for head in heads} | sets, heads)
    assert sweep.floor("mean", "loss") == (0, 5, 6)
    assert sweep.floor("mean", "loss", layer=0) == (0, 4, 3) and sweep.floor("mean", "loss", layer=2) == (1, 5, 3)
    (found,) = known_frame(sweep, (2, 1), "loss", "mean").to_dict("records")
    assert found == {"kind": "mean", "mean": 9, "low": 8, "high": 10, "chosen": True, "floor_low": 1, "floor_high": 5}


def test_a_patterns_small_weights_are_left_out_and_tokens_named() -> None:
    weights = np.array([[1, 0], [0.996, 0.004]])
    frame = pattern_frame(weights, ["a", "\n"])
    assert frame[["row", "column", "weight"]].values.tolist() == [[0, 0, 1], [1, 0, 0.996]]
    assert frame["from"].tolist() == ["a (0)", "⏎ (1)"] and frame["to"].tolist() == ["a (0)", "a (0)"]


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        (["if"], ["if"]),
        (
            ["if", " data", "scale", 'a"b', "\\n", "é⏎", "\n", "  ", " ", "\t", "\x1f", "datum.value", "<mask>"],
            ["if", "data", "scale", 'a"b', "\\n", "é⏎", "⏎", "␣×2", "␣", "⇥", "␣", "datum.value", "<mask>"],
        ),
    ],
)
def test_whatever_the_tokens_are_a_pattern_is_drawn_and_names_them(tokens: list[str], named: list[str]) -> None:
    """Vega takes a literal such as "if" for one of its functions where it stands alone."""
    svg = vl_convert.vegalite_to_svg(pattern_chart(pattern_frame(np.eye(len(tokens)), tokens), tokens).to_dict())
    drawn = [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
    assert [text for text in drawn if text not in ("looks", "looked at")] == 2 * named


def test_what_comes_from_data_is_escaped() -> None:
    shown = before_after([("<script>", 0.5)], [("<b>", 0.25)], "head 1.2", "peak")
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "<b>&lt;b&gt;</b>" in shown and "25%" in shown


def test_bars_hold_every_finite_value_and_heads_without_a_value_have_no_point() -> None:
    values = np.array([0.0, 1.0, 1.0, np.nan], np.float32)
    bars = value_bars(values)
    assert bars["count"].sum() == 3 and bars["count"].iloc[-1] == 2
    frame = head_scatter_frame(np.array([[0.5, np.nan]]), {"0.0": 0.1, "0.1": 0.2}, "0.0")
    assert frame.to_dict("records") == [{"label": "0.0", "across": 0.5, "up": 0.1, "picked": True}]


def test_a_score_against_harm_in_a_sentence() -> None:
    """The top head's rank, and Spearman's ρ by ranks written out: 1 − 6 Σd² / (n (n² − 1))."""
    scores, changes = [0.9, 0.1, 0.2, 0.3, 0.4], [0.2, 0.0, 0.1, 0.3, -0.1]
    frame = pd.DataFrame({"label": [f"0.{n}" for n in range(5)], "across": scores, "up": changes})
    ranks = [(5, 4), (1, 2), (2, 3), (3, 5), (4, 1)]
    rho = 1 - 6 * sum((one - other) ** 2 for one, other in ranks) / (5 * 24)
    assert score_sentence("Induction", "loss", "mean", frame) == (
        f"Head 0.0 scores highest (0.90); by mean its change of loss ranks 2 of 5. Rank correlation of induction and change "
        f"of loss: +{rho:.2f}."
    )
    assert "ranks" in score_sentence("Induction", "loss", "mean", frame.iloc[:2]), "too few for a correlation"
    assert "No head has both" in score_sentence("Induction", "loss", "mean", frame.iloc[:0])
