"""Numbers at their limits: half precision, NaN and infinity, constant neurons, one token, one image, nothing scored,
250,000 words, the longest sequences; and the same seed giving the same numbers."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from streamlit.testing.v1 import AppTest
from torch.utils._python_dispatch import TorchDispatchMode

from ablation_core import __main__ as cli
from ablation_core import ablate, bundled, compute_statistics, load_data, load_model
from ablation_core.activations.collect import counted_positions
from ablation_core.activations.files import list_statistics, save_statistics
from ablation_core.activations.statistics import Statistics, not_finite_first, not_finite_sentence
from ablation_core.data.dataset import IGNORED, Batch, Data
from ablation_core.data.user_input import MOST_TOKENS, NEW_TOKENS, prompt
from ablation_core.engine import clean_passes, forward, scoring
from ablation_core.engine.nonfinite import first_broken
from ablation_core.errors import DataError, ModelError
from ablation_core.experiments.estimate import estimate
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.runs.adaptive import AdaptiveSpec, adaptive_steps
from ablation_core.runs.pruning import CurveSpec, curve_steps
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from tests import tiny
from tests.conftest import ROOT, numbers

MEAN = (METHODS["mean"],)
THREADS_TOLERANCE = 1e-5  # nats per prediction, as docs/guide/numbers.md states it


def text(model: LoadedModel, predictions: int = 60, split: str = "evaluation", seq_len: int = 16) -> Data:
    return load_data("python-docs", model, predictions, seq_len, split=split)


# Half precision


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_statistics_of_half_precision_models_are_float32_and_those_of_the_values_themselves(dtype: str) -> None:
    model = load_model("opt-mini", dtype=dtype)
    data = text(model, 300, "statistics")
    statistics = compute_statistics(model, data)
    values = []
    for batch in data:
        captured = forward.z_values(model, batch, range(model.num_layers))
        assert captured[0].dtype == getattr(torch, dtype), "the model itself stays as it was asked for"
        here = counted_positions(batch, captured[0], 1)
        values.append(np.stack([captured[layer].double()[here].numpy() for layer in captured]))
    plain = np.concatenate(values, axis=1)  # layers, positions, neurons
    shape = statistics.mean.shape
    assert statistics.mean.dtype == statistics.std.dtype == np.float32
    np.testing.assert_allclose(statistics.mean, plain.mean(1).reshape(shape), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(statistics.std, plain.std(1).reshape(shape), rtol=1e-6, atol=1e-9)
    rounded = np.abs(statistics.mean - torch.from_numpy(statistics.mean).to(getattr(torch, dtype)).float().numpy())
    assert rounded.max() > 0, "a mean kept in half precision would show here"
    result = ablate(model, text(model), "3.2", ["zero", "mean", "peak"], statistics=statistics)
    assert result.statistics["digest"] == statistics.digest
    assert all(np.isfinite(row.change["loss"].mean) for row in result.results)


# NaN and infinity


def broken_in(layer: int, value: float) -> LoadedModel:
    """opt-mini with a number that is none in the values of one head of this layer."""
    model = load_model("opt-mini")
    model.module.model.decoder.layers[layer].self_attn.v_proj.bias.data[5] = value
    return model


@pytest.mark.parametrize(("layer", "value"), [(0, torch.inf), (3, torch.nan), (5, -torch.inf)])
def test_a_layer_that_breaks_is_named_by_every_computation(tmp_path: Path, layer: int, value: float) -> None:
    model = broken_in(layer, value)
    data, words = text(model), rf"NaN or infinite on .*, even unablated; it begins in layer {layer}\. Try --dtype"
    with pytest.raises(ModelError, match=words):
        ablate(model, data, "1.1", "zero")
    with pytest.raises(ModelError, match=words):
        estimate(model, data, "zero")
    zero = (METHODS["zero"],)
    with pytest.raises(ModelError, match=words):
        finished(sweep_steps(model, data, SweepSpec(zero, heads=((1, 1),), random_sets=0), None, tmp_path))
    with pytest.raises(ModelError, match=words):
        finished(curve_steps(model, data, CurveSpec(zero, seeds=(1,), percents=(50,)), None, tmp_path))
    with pytest.raises(ModelError, match=words):
        finished(adaptive_steps(model, data, AdaptiveSpec(zero, heads=((1, 1),)), None, tmp_path))


def test_what_breaks_behind_the_layers_is_said_to() -> None:
    model = load_model("opt-mini")
    model.module.model.decoder.final_layer_norm.weight.data[0] = torch.nan
    with pytest.raises(ModelError, match="all layers' outputs are finite, what follows them is not"):
        ablate(model, text(model), "1.1", "zero")
    assert first_broken(forward.record(model, text(model).rows([0])).outputs) is None


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_statistics_say_where_values_are_no_numbers_and_average_none_away(value: float) -> None:
    model = broken_in(3, value)
    data = text(model, 300, "statistics")
    statistics = compute_statistics(model, data)
    whole = compute_statistics(load_model("opt-mini"), data)
    tokens = statistics.provenance["tokens"]
    assert not_finite_first(statistics) == 3 and not_finite_first(whole) is None
    np.testing.assert_array_equal(statistics.mean[:3], whole.mean[:3])
    assert statistics.not_finite[:3].sum() == 0 and statistics.not_finite[3, 0, 5] == tokens
    assert np.isnan(statistics.mean[3, 0, 5]) and np.isnan(statistics.peak()[3, 0, 5])
    assert statistics.count[3, 0, 5] == 0 and statistics.count[3, 0, 4] == tokens
    assert f"{int(statistics.not_finite.sum()):,} values of" in not_finite_sentence(statistics)
    assert "the first in layer 3" in not_finite_sentence(statistics)
    assert not_finite_sentence(whole) == ""


def some_not_finite(statistics: Statistics) -> Statistics:
    count = np.zeros_like(statistics.not_finite)
    count[4, 2, 7:10] = 2
    return replace(statistics, not_finite=count)


def test_the_commands_warn_of_values_that_are_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, opt_mini: LoadedModel
) -> None:
    computed = some_not_finite(compute_statistics(opt_mini, text(opt_mini, 60, "statistics")))
    monkeypatch.setattr("ablation_core.activations.collect.compute_statistics", lambda *_, **__: computed)
    small = ["--predictions", "60", "--seq-len", "16", "--cache-dir", str(tmp_path), "--json"]
    assert cli.main(["stats", "opt-mini", *small]) == 0
    said = capsys.readouterr()
    assert "6 values of 3 neurons were NaN or infinite, the first in layer 4" in said.err
    document = json.loads(said.out)
    assert (document["not_finite"], document["not_finite_first_layer"]) == (6, 4)
    assert cli.main(["ablate", "opt-mini", "--select", "0.0", "--method", "mean", *small]) == 0
    assert "6 values of 3 neurons were NaN or infinite, the first in layer 4" in capsys.readouterr().err


def test_the_pages_warn_of_values_that_are_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opt_mini: LoadedModel
) -> None:
    computed = some_not_finite(compute_statistics(opt_mini, text(opt_mini, 300, "statistics", 128)))
    path = save_statistics(computed, tmp_path)
    (found,) = (entry for entry in list_statistics(tmp_path)[0] if entry.path == path)
    monkeypatch.setattr("ablation_core.activations.files.find_statistics", lambda *_, **__: found)
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    page.query_params["model"] = "opt-mini"
    page.run()
    assert not page.exception
    assert any("the first in layer 4" in warning.value for warning in page.warning)


# Constant neurons, one token, one image, nothing scored


def test_a_constant_head_keeps_its_value_by_every_constant_and_changes_nothing() -> None:
    model = load_model("opt-mini")
    attention = model.module.model.decoder.layers[2].self_attn
    attention.v_proj.weight.data[32:64] = 0  # head 1
    attention.v_proj.bias.data[32:64] = torch.linspace(-1, 1, 32)
    statistics = compute_statistics(model, text(model, 300, "statistics"))
    constant = np.linspace(-1, 1, 32, dtype=np.float32)
    for values in (statistics.mean, statistics.median(), statistics.peak(), statistics.minimum, statistics.maximum):
        np.testing.assert_allclose(values[2, 1], constant, atol=1e-6)
    assert statistics.std[2, 1].max() < 1e-6
    result = ablate(model, text(model), "2.1", ["mean", "median", "peak", "zero"], statistics=statistics)
    by_mean, by_median, by_peak, by_zero = (row.change["loss"].mean for row in result.results)
    assert max(abs(by_mean), abs(by_median), abs(by_peak)) < 1e-6 < abs(by_zero)


def everything(model: LoadedModel, data: Data, statistics: Statistics, folder: Path) -> list[dict]:
    """Each kind of computation on the same data."""
    usable = [
        row for row in METHODS.values() if model.modality in row.modalities and not (row.learned or row.counterfactual)
    ]
    few = SweepSpec(MEAN, heads=((0, 0), (1, 1)), random_sets=1)
    return [
        ablate(model, data, "1.1", [row.name for row in usable], statistics=statistics).to_dict(),
        estimate(model, data, "mean", statistics=statistics).to_dict(),
        finished(sweep_steps(model, data, few, statistics, folder)).to_dict(),
        finished(adaptive_steps(model, data, AdaptiveSpec(MEAN, heads=((0, 0), (1, 1))), statistics, folder)).to_dict(),
        finished(curve_steps(model, data, CurveSpec(MEAN, seeds=(1,), percents=(0, 50)), statistics, folder)).to_dict(),
    ]


@pytest.mark.parametrize("ref", ["opt-mini", pytest.param("roberta-mini", marks=pytest.mark.slow), "vit-mini"])
def test_one_prediction_gives_a_number_and_no_interval(tmp_path: Path, ref: str, few_learned_from: None) -> None:
    model = load_model(ref)
    name = "fashion-mnist" if model.modality == "vision" else "python-docs"
    statistics = compute_statistics(model, load_data(name, model, 1, 8, split="statistics"))
    data = load_data(name, model, 1, 8)
    documents = everything(model, data, statistics, tmp_path)
    json.dumps(documents, allow_nan=False)
    assert documents[0]["data"]["predictions"] == 1
    for row in documents[0]["results"]:
        assert row["loss"] is not None and row["change"]["loss"]["low"] is None
    if model.modality == "causal":  # by hand: two tokens in, one loss out
        batch = data.rows([0])
        place = int((batch.targets[0] != IGNORED).nonzero()[0, 0])
        logits = model.module(**batch.inputs).logits[0, place].double()
        loss = float(logits.logsumexp(0) - logits[batch.targets[0, place]])
        assert documents[0]["baseline"]["loss"] == pytest.approx(loss, abs=1e-6)


def test_where_all_targets_are_ignored_each_computation_says_so(tmp_path: Path, opt_mini: LoadedModel) -> None:
    data = text(opt_mini)
    ignored = replace(
        data, rows=lambda n: replace(data.rows(n), targets=torch.full_like(data.rows(n).targets, IGNORED))
    )
    words, zero = "Nothing is scored in .*python-docs", (METHODS["zero"],)
    with pytest.raises(DataError, match=words):
        ablate(opt_mini, ignored, "1.1", "zero")
    with pytest.raises(DataError, match=words):
        estimate(opt_mini, ignored, "zero")
    with pytest.raises(DataError, match=words):
        finished(sweep_steps(opt_mini, ignored, SweepSpec(zero, heads=((0, 0),)), None, tmp_path))
    with pytest.raises(DataError, match=words):
        finished(adaptive_steps(opt_mini, ignored, AdaptiveSpec(zero, heads=((0, 0),)), None, tmp_path))


def test_a_batch_in_which_nothing_is_scored_changes_nothing(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, 60, 16, batch_size=2)

    def rows(numbers: list[int]) -> Batch:
        batch = data.rows(numbers)
        unscored = torch.tensor([number in (2, 3) for number in numbers])
        return replace(batch, targets=batch.targets.masked_fill(unscored[:, None], IGNORED))

    result = ablate(opt_mini, replace(data, rows=rows), "1.1", "zero").to_dict()
    fewer = replace(data, sequences=2, rows=lambda numbers: rows([number + 4 * (number > 1) for number in numbers]))
    assert data.sequences == 4 and result["data"]["predictions"] == 30
    assert result["results"][0]["loss"] == ablate(opt_mini, fewer, "1.1", "zero").to_dict()["results"][0]["loss"]


# 250,000 words


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that any operation makes while this is on."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(one, torch.Tensor) and one.device.type == "cpu":
                self.bytes = max(self.bytes, one.nbytes)
        return made


@pytest.fixture(scope="module")
def wide() -> LoadedModel:
    """A tiny model with a vocabulary of 250,000."""
    torch.manual_seed(0)
    config = transformers.OPTConfig(**(tiny.TRANSFORMERS["opt"][1] | {"vocab_size": 250_000}))
    module = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    from ablation_core.models.architectures import ARCHITECTURES
    from ablation_core.models.loaded import wrap

    return wrap("wide", module, ARCHITECTURES["opt"])


def wide_batch() -> Batch:
    ids = torch.randint(5, 250_000, (8, 60), generator=torch.Generator().manual_seed(1))
    return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids.roll(-1, 1))


@pytest.mark.slow
def test_a_vocabulary_of_250_000_is_scored_without_all_logits_at_once(wide: LoadedModel) -> None:
    full = 8 * 60 * 250_000 * 4
    with Largest() as seen:
        clean_pass = forward.record(wide, wide_batch())
        zero = {1: lambda z: torch.zeros_like(z)}
        output = clean_passes.ablated_output(wide, clean_pass, zero)
        clean, ablated = scoring.score_outputs(wide, clean_pass, [output])
    assert 0 < seen.bytes <= 4 * scoring.LOGIT_VALUES < full / 3
    for row in (0, 7):  # by hand, one sequence at a time
        logits = wide.module(**{name: x[row : row + 1] for name, x in wide_batch().inputs.items()}).logits[0].double()
        right = logits.gather(1, wide_batch().targets[row][:, None])[:, 0]
        np.testing.assert_allclose(clean.loss[row * 60 : (row + 1) * 60], logits.logsumexp(1) - right, atol=1e-4)
    assert np.isfinite(ablated.loss).all() and (ablated.loss != clean.loss).any()


@pytest.mark.slow
def test_gradients_over_250_000_words_are_taken_in_parts_too(wide: LoadedModel) -> None:
    clean_pass = forward.record(wide, wide_batch())
    with Largest() as seen:
        total, gradient = scoring.loss_gradient(wide, clean_pass, clean_pass.outputs[-1])
    assert seen.bytes <= 4 * scoring.LOGIT_VALUES
    assert np.isfinite(total) and gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.slow
def test_the_measure_of_memory_sees_full_logits(wide: LoadedModel) -> None:
    with Largest() as seen, torch.no_grad():
        wide.module(**{name: x[:2] for name, x in wide_batch().inputs.items()})
    assert seen.bytes >= 2 * 60 * 250_000 * 4


# The longest sequences


CAUSAL = {name: tiny.TRANSFORMERS[name] for name in ("gpt2", "opt", "gpt_neo", "gpt_neox", "gptj", "llama")}
MASKED = {
    name: tiny.TRANSFORMERS[name]
    for name in ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "deberta-v2", "esm")
}
MASKED["esm, absolute positions"] = ("EsmConfig", MASKED["esm"][1] | {"position_embedding_type": "absolute"})


@pytest.mark.parametrize("name", [*CAUSAL, *MASKED])
def test_the_longest_sequence_works_and_a_longer_one_is_a_sentence(tmp_path: Path, name: str) -> None:
    config, arguments = (CAUSAL | MASKED)[name]
    loader = "AutoModelForCausalLM" if name in CAUSAL else "AutoModelForMaskedLM"
    torch.manual_seed(0)
    module = getattr(transformers, loader).from_config(
        getattr(transformers, config)(**(arguments | {"vocab_size": 4096}))
    )
    module.save_pretrained(tmp_path)
    source = bundled.FOLDER / ("opt-mini" if name in CAUSAL else "roberta-mini")
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    longest = model.max_length
    assert longest is not None and 60 <= longest <= 64
    data = load_data("python-docs", model, 70, longest)
    assert data.rows([0]).inputs["input_ids"].shape[1] == longest
    assert np.isfinite(ablate(model, data, "1.1", "zero").baseline.loss)
    with pytest.raises(DataError, match=f"reads at most {longest} tokens; choose a seq-len up to that"):
        load_data("python-docs", model, 70, longest + 1)


def test_a_prompt_longer_than_is_taken_is_a_sentence(opt_mini: LoadedModel) -> None:
    most = min(MOST_TOKENS, opt_mini.max_length - NEW_TOKENS)
    with pytest.raises(DataError, match=f"opt-mini takes at most {most} here. Shorten it"):
        prompt(opt_mini, "again and again " * 300, "python-docs")


# The same seed, the same numbers


def measured(threads: int) -> dict:
    """Everything that is computed from a seed, with so many threads."""
    torch.set_num_threads(threads)
    model = load_model("opt-mini")
    statistics = compute_statistics(model, load_data("python-docs", model, 300, 32, split="statistics", seed=3))
    data = load_data("python-docs", model, 100, 32, seed=3)
    methods = ["zero", "mean", "peak", "resample-dataset"]
    return {
        "statistics": statistics.digest,
        "means": statistics.mean.ravel().tolist(),
        "ablate": numbers(ablate(model, data, "1.1 3.2 5.0:1-4", methods, statistics=statistics)),
        "estimate": numbers(estimate(model, data, "mean", statistics=statistics)),
    }


@pytest.mark.slow
def test_a_seed_gives_the_same_bits_in_each_run_and_nearly_the_same_with_more_threads() -> None:
    threads = torch.get_num_threads()
    try:
        once, alone = measured(2), measured(1)
    finally:
        torch.set_num_threads(threads)
    script = "import json; from tests.integration.test_numbers import measured; print(json.dumps(measured(2)))"
    another = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert another.returncode == 0, another.stderr
    assert json.loads(another.stdout) == json.loads(json.dumps(once)), "another process, the same number of threads"
    np.testing.assert_allclose(once["means"], alone["means"], rtol=1e-5, atol=1e-6)
    for rows in zip(once["ablate"]["results"], alone["ablate"]["results"], strict=True):
        assert rows[0]["method"] == rows[1]["method"]
        for metric in ("loss", "kl"):
            assert abs(rows[0][metric] - rows[1][metric]) < THREADS_TOLERANCE
    for one, other in zip(*(run["estimate"]["results"][0]["heads"] for run in (once, alone)), strict=True):
        assert one["loss"]["estimate"] == pytest.approx(other["loss"]["estimate"], abs=1e-3, rel=1e-2)


def test_another_seed_gives_other_numbers(vit_mini: LoadedModel) -> None:
    """So that equal numbers above mean something."""

    def losses(seed: int) -> list[float]:
        data = load_data("fashion-mnist", vit_mini, 50, seed=seed)
        return [row.performance.loss for row in ablate(vit_mini, data, "1.1", ["zero", "resample-dataset"]).results]

    assert losses(0) == losses(0) != losses(1)
