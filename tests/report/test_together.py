"""Interactions drawn and said: the matrix has the document's numbers, and the sentence says what the verdicts mean."""

import math

import pytest

from ablation_core.experiments.interaction_result import InteractionResult, PairInteraction
from ablation_core.report.present.interactions import interaction_matrix, matrix_frame, meaning_sentence, pairs_table
from ablation_core.stats.intervals import Interval


def result_of(*pairs: PairInteraction) -> InteractionResult:
    singles = {head: Interval(0.1 * n, 0.05 * n, 0.2 * n) for n, head in enumerate(("0.0", "0.1", "1.0"), 1)}
    heads = {head for pair in pairs for head in pair.pair}
    singles = {head: change for head, change in singles.items() if head in heads}
    joint, excess = Interval(0.5, 0.4, 0.6), Interval(-0.1, -0.2, -0.05)
    return InteractionResult({}, "mean", 100, 0, "all", 2.0, singles, pairs, joint, excess)


def pair(names: str, mean: float, q: float | None, verdict: str) -> PairInteraction:
    one, other = names.split()
    low, high = (None, None) if q is None else (mean - 0.01, mean + 0.01)
    return PairInteraction((one, other), Interval(0.3, 0.2, 0.4), Interval(mean, low, high), q, q, verdict)


THREE = (
    pair("0.0 0.1", 0.05, 0.01, "redundant"),
    pair("0.0 1.0", -0.02, 0.03, "synergistic"),
    pair("0.1 1.0", 0.001, 0.8, "independent"),
)


def test_the_matrix_has_every_pair_twice_and_the_single_changes_on_its_diagonal() -> None:
    frame = matrix_frame(result_of(*THREE)).set_index(["one", "other"])
    assert len(frame) == 9
    for one in THREE:
        assert frame.loc[one.pair, "value"] == frame.loc[one.pair[::-1], "value"] == one.interaction.mean
    assert frame.loc[("0.1", "0.1"), "value"] == pytest.approx(0.2) and frame.loc[("0.1", "0.1"), "alone"]
    drawn = interaction_matrix(result_of(*THREE)).to_dict()
    scale = drawn["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert scale[0] == -scale[-1] == -0.05, "0 is in the middle of the colours"
    assert interaction_matrix(result_of(THREE[0]), dark=True).to_dict()


def test_the_sentence_counts_the_verdicts_and_says_the_clearest() -> None:
    words = meaning_sentence(result_of(*THREE))
    assert words.startswith("Of 3 pairs: 1 redundant, 1 synergistic, 1 independent. **0.0 and 0.1 are redundant: ")
    assert "0.1000 nats less than the single changes add up to" in words
    undecided = meaning_sentence(result_of(pair("0.0 0.1", 0.3, 0.4, "undecided")))
    assert "Of 1 pair: 1 undecided" in undecided and "All together" not in undecided
    assert "too few sequences" in meaning_sentence(result_of(pair("0.0 0.1", 0.3, None, "undecided")))


def test_the_table_is_sorted_by_size() -> None:
    table = pairs_table(result_of(*THREE))
    assert list(table["pair"]) == ["0.0 + 0.1", "0.0 + 1.0", "0.1 + 1.0"]
    assert table["interaction"].iloc[1] == "−0.0200 [−0.0300, −0.0100]" and not math.isnan(table["q"].iloc[0])
