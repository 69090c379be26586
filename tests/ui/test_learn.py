"""The Learn page's made-up neuron against scipy, its real examples, and its answers measured again."""

import re

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import norm, skewnorm

from ablation_core import METHODS, ablate, attention_pattern, head_scores, load_data, load_statistics
from ablation_core.activations.neuron_summary import summarise_neuron
from ablation_core.data.dataset import Data
from ablation_core.engine.clean_passes import CleanPassCache, constant_replacements
from ablation_core.experiments.noise_floor import noise_floor_steps
from ablation_core.heads.scores import repeated_tokens
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection
from ablation_core.stats.intervals import Interval
from ablation_core.storage import CACHE
from ablation_core.ui.learn.glossary import explained, words
from ablation_core.ui.learn.lessons import (
    DATA,
    DATA_OF,
    EXAMPLES,
    EXPERIMENTS,
    MODEL,
    PREDICTIONS,
    REFERENCES,
    task_figure,
)
from ablation_core.ui.learn.toy import PRESETS, RANGE, SECOND_WIDTH, Toy
from tests.conftest import ROOT

QUOTED = "64041a4c66b1c641"  # the fingerprint of the text that the answers' figures were measured on; other Pythons have other words
SHAPES = [*PRESETS.values(), Toy(1.5, -8.0, 0.25, -3.0), Toy(-2.0, 3.0, 0.1, 4.0)]


@pytest.mark.parametrize("toy", SHAPES, ids=str)
def test_the_made_up_neuron_is_the_mixture_it_claims_to_be(toy: Toy) -> None:
    def density(x: float) -> float:
        second = norm.pdf(x, toy.place + toy.distance, SECOND_WIDTH)
        return (1 - toy.second) * skewnorm.pdf(x, toy.lean, toy.place) + toy.second * second

    x = np.linspace(-5, 8, 27)
    assert toy.density(x) == pytest.approx([density(one) for one in x], abs=1e-12)
    mean = quad(lambda v: v * density(v), -15, 18, limit=400, points=[toy.place])[0]
    square = quad(lambda v: v * v * density(v), -15, 18, limit=400, points=[toy.place])[0]
    assert toy.mean == pytest.approx(mean, abs=1e-6)
    assert toy.std == pytest.approx(np.sqrt(square - mean**2), abs=1e-6)
    assert quad(density, -15, toy.median, limit=200)[0] == pytest.approx(0.5, abs=1e-3)
    highest = max(
        minimize_scalar(lambda v: -density(v), bounds=(a, a + 1), method="bounded").x for a in [toy.peak - 0.5]
    )
    assert toy.peak == pytest.approx(highest, abs=2e-3)
    assert density(toy.peak) >= max(density(one) for one in x) - 1e-6
    near = quad(density, toy.mean - 0.25 * toy.std, toy.mean + 0.25 * toy.std)[0]
    assert toy.share_near(toy.mean) == pytest.approx(near, abs=1e-6)


def test_the_picture_holds_nearly_every_activation_that_the_sliders_allow() -> None:
    for place in (-4.0, 6.0):
        for distance in (-4.0, 4.0):
            bars = Toy(place, 0.0, 0.5, distance).bars()
            assert bars["left"].iloc[0] == RANGE[0] and bars["right"].iloc[-1] == RANGE[1]
            assert bars["count"].sum() > 4_000  # at least the first hump, at the sliders' very ends
    assert Toy(1.5, 8.0).bars()["count"].sum() == pytest.approx(10_000, abs=30)  # each bar is rounded


def test_each_shape_shows_what_its_name_says() -> None:
    bell, far, leaning, humps = (
        PRESETS[name] for name in ("Bell around zero", "Far from zero", "Leaning", "Two humps")
    )
    assert bell.mean == pytest.approx(0) and bell.peak == pytest.approx(0, abs=1e-3)
    assert "Mean and peak agree" in bell.sentence()
    assert far.share_near(0.0) < 1e-4 and "hardly ever" in far.sentence()
    assert (leaning.mean - leaning.peak) / leaning.std > 0.5
    assert humps.share_near(humps.mean) < 0.5 * humps.share_near(humps.peak)


@pytest.mark.parametrize("model", EXAMPLES)
def test_the_real_examples_show_what_their_words_say(model: str) -> None:
    (path,) = (CACHE / model).glob(f"{DATA_OF[model]}-????????.safetensors")
    statistics = load_statistics(path)
    readings = {name: summarise_neuron(statistics, *example.neuron, 60) for name, example in EXAMPLES[model].items()}
    ordinary = readings["An ordinary one"]
    assert max(abs(ordinary.distance_in_std(kind, "mean")) for kind in ordinary.values) < 0.1
    far = EXAMPLES[model]["Far from zero"]
    distance = abs(statistics.mean / statistics.std)
    if "never" in far.words:
        assert statistics.minimum[far.neuron] > 0 and distance[far.neuron] > 6
    else:
        assert distance[far.neuron] == distance.max() > 2
    leaning = readings["Leaning"]
    assert abs(leaning.distance_in_std("peak", "mean")) > 0.6 and leaning.second_mode is None
    humps = readings["Two humps"]
    low, high = sorted((humps.second_mode, humps.values["peak"]))
    assert low < humps.values["mean"] < high


@pytest.fixture(scope="module")
def measured(opt_mini: LoadedModel) -> tuple[Data, dict[tuple[str, str], Interval]]:
    """The data, and the change of loss by each (selection, method) that an answer speaks of, measured once for all."""
    statistics = load_statistics(CACHE / "opt-mini" / "python-docs-acd88b39.safetensors", opt_mini)
    data, spoken, found = (
        load_data(DATA, opt_mini, PREDICTIONS),
        {key for one in EXPERIMENTS for key in one.figures},
        {},
    )
    for select in {select for select, _ in spoken}:
        methods = [name for name in METHODS if (select, name) in spoken]
        for row in ablate(opt_mini, data, select, methods, statistics=statistics).results:
            found[select, row.method] = row.change["loss"]
    return data, found


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.title)
def test_the_answers_are_what_is_measured(
    experiment, measured: tuple[Data, dict[tuple[str, str], Interval]], opt_mini: LoadedModel
) -> None:
    data, changes = measured
    for (select, method), (mean, low, high) in experiment.figures.items():
        found = changes[select, method]
        assert found.shows_effect == (low > 0 or high < 0), (select, method)
        assert low <= found.mean <= high and found.low <= mean <= found.high, "true of any Python's documentation"
        if data.fingerprint == QUOTED:
            assert (found.mean, found.low, found.high) == pytest.approx((mean, low, high), abs=2e-4)
    assert "{" not in experiment.answer_text
    for link in experiment.links.values():
        assert Selection.parse(link.select, opt_mini.shape).heads and link.method in METHODS
        assert link.params["model"] == MODEL and (ROOT / link.page).exists()


def test_the_band_of_the_second_experiment(opt_mini: LoadedModel) -> None:
    statistics = load_statistics(CACHE / "opt-mini" / "python-docs-acd88b39.safetensors", opt_mini)
    data = load_data(DATA, opt_mini, PREDICTIONS)
    clean_cache = CleanPassCache(opt_mini, data)
    *_, floor = noise_floor_steps(clean_cache, Selection.parse("2.3", opt_mini.shape), statistics, 0)
    low, high = (
        float(text) for text in re.search(r"random neurons \((\S+) to (\S+)\)", EXPERIMENTS[1].answer).groups()
    )
    assert floor.low < high and floor.high > low
    if data.fingerprint == QUOTED:
        assert (floor.low, floor.high) == pytest.approx((low, high), abs=2e-4)
    assert floor.high < EXPERIMENTS[1].figures["2.3", "mean"][1], "far outside the band"


def test_position_explains_nine_tenths_of_the_third_experiments_head(opt_mini: LoadedModel) -> None:
    """The share of variance that the position alone explains, by numpy on raw activations."""
    from ablation_core.engine import forward

    values = []
    for batch in load_data(DATA, opt_mini, 6000):
        values.append(forward.z_values(opt_mini, batch, [0])[0][:, 1:, 4 * 32 : 5 * 32].numpy())
    values = np.concatenate(values).astype(np.float64)
    share = values.mean(axis=0).var(axis=0).sum() / values.var(axis=(0, 1)).sum()
    assert round(float(share), 1) == 0.9


@pytest.mark.slow
def test_the_fourth_experiments_heads_are_what_they_are_said_to_be(opt_mini: LoadedModel) -> None:
    """Scores measured again; the task's figures by a plain ablation; 5.1 loses its place without 3.3, by a plain loop."""
    experiment, data = EXPERIMENTS[3], load_data(DATA, opt_mini, PREDICTIONS)
    scores = head_scores(opt_mini, data)
    for (name, head), value in experiment.scores.items():
        tolerance = 5e-4 if data.fingerprint == QUOTED else 0.01  # previous token: on the documentation
        assert scores[name][tuple(map(int, head.split(".")))] == pytest.approx(value, abs=tolerance), (name, head)
        if value:
            assert scores[name].max() == scores[name][tuple(map(int, head.split(".")))], "the highest of all"

    statistics = load_statistics(CACHE / "opt-mini" / "python-docs-acd88b39.safetensors", opt_mini)
    prompts = load_data("task:induction", opt_mini, 100)
    for head in ("5.1", "3.3"):
        found = ablate(opt_mini, prompts, head, ["mean", "counterfactual"], statistics=statistics)
        assert (
            task_figure("induction", "baseline", "logit_difference")
            == f"{found.baseline['logit_difference']:+.2f} nats"
        )
        for row in found.results:
            change = row.change["logit_difference"]
            words = f"{change.mean:+.2f} nats ({change.low:+.2f} to {change.high:+.2f})".replace("-", "−")
            assert task_figure("induction", head, row.method) == words and words in experiment.answer_text

    ids = repeated_tokens(opt_mini, data, 0)
    means = constant_replacements(Selection.parse("3.3", opt_mini.shape), np.asarray(statistics.mean), opt_mini)
    size, found = ids.shape[1] // 2, []
    for replacements in (None, means):
        patterns = attention_pattern(opt_mini, ids, "5.1", replacements)
        behind = [pattern[1 + size + k, 2 + k] for pattern in patterns for k in range(size)]
        found.append(f"{np.mean(behind):.2f}")
    assert f"falls from {found[0]} to {found[1]}" in experiment.answer_text


def test_without_the_published_sweep_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablation_core.ui.learn.lessons.published_task", lambda _: None)
    assert "(not measured here)" in EXPERIMENTS[3].answer_text


def test_every_reference_has_its_address() -> None:
    for reference in REFERENCES:
        assert reference.link.startswith("https://") and reference.why.endswith(".")
        if number := re.search(r"arXiv (\d{4}\.\d{5})", reference.text):
            assert reference.link == f"https://arxiv.org/abs/{number[1]}"


def test_every_word_of_the_pages_is_explained() -> None:
    known = explained()
    said = ("loss", "perplexity", "top-1", "top-10", "kl", "noise floor", "false discovery", "significant", "fdr", "pp", "estimate", "residual stream",
            "standard error", "interval", "rank correlation", "adaptive", "skew", "second hump", "baseline", "chance",
            "induction head", "previous token", "duplicate token", "first token", "self", "entropy", "distance", "direct effect",
            "random twin", "attention pattern", "statistics part", "evaluation part", "std", "bin", "seed", "pruning curve", "sweep", "token")  # fmt: skip
    assert [word for word in said if word not in known] == []
    families = {"resample": "resampling"}  # its kinds are explained under one word
    names = [families.get(name.split("-")[0], name) for name in METHODS]
    assert [name for name in names if name not in known] == []
    for table in words().values():
        assert (table["meaning"].str.len() > 15).all() and table["meaning"].str.endswith(".").all()
