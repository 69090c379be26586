"""A fingerprint tells apart what gives other numbers, and nothing else: settings beside the weights."""

import copy
import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers as tf
from torch import nn

from ablation_core import (
    ablate,
    as_statistics,
    bundled,
    compute_statistics,
    find_statistics,
    load_data,
    load_model,
    load_result,
    save_result,
    save_statistics,
    sweep,
)
from ablation_core.errors import ReportError, StatisticsError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.own_code import code_of, hooks_of
from ablation_core.models.random_twin import random_twin
from ablation_core.models.settings import parts_of, settings_by, settings_of, unlike_built
from ablation_core.models.weights import weights_digest
from ablation_core.runs.sweep_result import kept_sweeps
from tests import tiny
from tests.loading.test_door import saved

LLAMA = tiny.LLAMA | {"vocab_size": 4096}
IDS = torch.arange(5, 25)[None]


def copied(folder: Path, place: Path, **changes: Any) -> Path:
    """A model's folder with an edited config.json."""
    shutil.copytree(folder, place)
    file = place / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return place


@torch.inference_mode()
def logits(model: LoadedModel) -> torch.Tensor:
    return model.module(input_ids=IDS, return_dict=True).logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(saved(tmp_path_factory.mktemp("llama"), "LlamaForCausalLM", tf.LlamaConfig(**LLAMA)))


@pytest.fixture(scope="module")
def llama(folder: Path) -> LoadedModel:
    return load_model(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "relu"},
        {"rms_norm_eps": 0.1},
        {"rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0}},
    ],
    ids=str,
)
def test_the_same_weights_run_otherwise_are_another_model(
    llama: LoadedModel, folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    other = load_model(str(copied(folder, tmp_path / "edited", **changes)))
    assert weights_digest(other.module) == weights_digest(llama.module)
    assert not torch.allclose(logits(other), logits(llama), atol=1e-3), "the edit changes numbers"
    assert other.fingerprint != llama.fingerprint
    assert load_model(other.ref).fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("class_name", "config", "changes"),
    [
        ("MistralForCausalLM", tf.MistralConfig(**LLAMA, sliding_window=4), {"sliding_window": 9}),
        ("GraniteForCausalLM", tf.GraniteConfig(**LLAMA, logits_scaling=3.0), {"logits_scaling": 1.5}),
        (
            "GPT2LMHeadModel",
            tf.GPT2Config(**tiny.GPT | {"vocab_size": 4096}),
            {"scale_attn_by_inverse_layer_idx": True},
        ),
    ],
)
def test_so_are_other_windows_and_scalings(tmp_path: Path, class_name: str, config: Any, changes: dict) -> None:
    model = load_model(saved(tmp_path / "plain", class_name, config))
    other = load_model(str(copied(tmp_path / "plain", tmp_path / "edited", **changes)))
    assert weights_digest(other.module) == weights_digest(model.module)
    assert not torch.allclose(logits(other), logits(model), atol=1e-4)
    assert other.fingerprint != model.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"use_cache": False, "output_attentions": True, "output_hidden_states": True},
        {"return_dict": False, "torchscript": True},
        {"transformers_version": "4.0.0", "_name_or_path": "another/name", "torch_dtype": "bfloat16"},
        {"id2label": {"0": "a"}, "label2id": {"a": 0}, "task_specific_params": {"text-generation": {"max_length": 9}}},
        {"rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False},  # what it is anyway
    ],
    ids=str,
)
def test_what_changes_no_number_is_the_same_model(
    llama: LoadedModel, folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    other = load_model(str(copied(folder, tmp_path / "edited", **changes)))
    assert torch.equal(logits(other), logits(llama))
    assert other.fingerprint == llama.fingerprint


def test_numbers_in_other_spelling_and_saved_again_are_the_same(
    llama: LoadedModel, folder: Path, tmp_path: Path
) -> None:
    theta = {"rope_parameters": {"rope_theta": 10000, "rope_type": "default"}}
    spelled = copied(folder, tmp_path / "spelled", **theta)
    assert load_model(str(spelled)).fingerprint == llama.fingerprint
    again = tf.AutoModelForCausalLM.from_pretrained(folder)
    again.save_pretrained(tmp_path / "again")
    tf.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert load_model(str(tmp_path / "again")).fingerprint == llama.fingerprint
    assert load_model(again, tokenizer=llama.tokenizer).fingerprint == llama.fingerprint


def test_neither_statistics_nor_runs_nor_results_of_the_other_are_taken(folder: Path, tmp_path: Path) -> None:
    """Edited in place, so that the name is the same too."""
    own = copied(folder, tmp_path / "own")
    model = load_model(str(own))
    counted = load_data("python-docs", model, 120, seq_len=24, split="statistics")
    save_statistics(compute_statistics(model, counted), tmp_path / "cache")
    data = load_data("python-docs", model, 90, seq_len=24)
    statistics = as_statistics("python-docs", model, tmp_path / "cache")
    options = {"random_sets": 1, "heads": "1.2 2.0"}
    first = sweep(model, data, ["zero", "mean"], statistics=statistics, cache=tmp_path / "cache", **options)
    save_result(first, "heads", cache=tmp_path / "cache")

    file = own / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "relu"}))
    other = load_model(str(own))
    theirs = load_data("python-docs", other, 90, seq_len=24)
    with pytest.raises(StatisticsError, match=r"model_fingerprint differs \(the weights are the same, but") as refused:
        as_statistics("python-docs", other, tmp_path / "cache")
    assert str(own) in str(refused.value)
    with pytest.raises(StatisticsError, match=r"another model: .*the weights are the same, but"):
        ablate(other, theirs, "1.2", "mean", statistics=statistics)
    with pytest.raises(ReportError, match=r"of another model: .*the weights are the same, but"):
        load_result("heads", cache=tmp_path / "cache", model=other)
    runs = [sweep(other, theirs, "zero", cache=tmp_path / cache, **options) for cache in ("cache", "empty")]
    assert runs[0].heads == runs[1].heads and runs[0].baseline == runs[1].baseline
    assert runs[0].baseline["loss"] != first.baseline["loss"]


def test_statistics_of_a_version_that_did_not_look_at_settings_are_refused_with_that_sentence(
    llama: LoadedModel, tmp_path: Path
) -> None:
    part = load_data("python-docs", llama, 60, seq_len=24, split="statistics")
    statistics = compute_statistics(llama, part)
    statistics.provenance["model_fingerprint"] = weights_digest(llama.module)  # as these wrote it
    save_statistics(statistics, tmp_path)
    assert find_statistics(llama, "python-docs", tmp_path) is None
    data = load_data("python-docs", llama, 60, seq_len=24)
    with pytest.raises(StatisticsError, match="or an earlier version made this, which did not look at settings"):
        ablate(llama, data, "1.2", "mean", statistics=statistics)


@pytest.mark.parametrize(
    "changes", [{"global_pool": "avg", "fc_norm": False}, {"act_layer": "relu"}, {"qk_norm": False}]
)
def test_a_timm_folder_with_other_arguments(vit_mini: LoadedModel, tmp_path: Path, changes: dict[str, Any]) -> None:
    arguments = json.loads((bundled.FOLDER / "vit-mini" / "config.json").read_text())["model_args"]
    place = copied(bundled.FOLDER / "vit-mini", tmp_path / "edited", model_args=arguments | changes)
    other, images = load_model(str(place)), torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert weights_digest(other.module) == weights_digest(vit_mini.module)
    with torch.inference_mode():
        same = torch.equal(other.module(images), vit_mini.module(images))
    assert same == (changes == {"qk_norm": False})  # which it has not anyway
    assert (other.fingerprint == vit_mini.fingerprint) == same
    assert (find_statistics(other, "fashion-mnist") is None) != same


def test_an_edit_in_memory_shows_and_can_be_taken_back(folder: Path, tmp_path: Path) -> None:
    model = load_model(str(folder))
    part = load_data("python-docs", model, 60, seq_len=24, split="statistics")
    data = load_data("python-docs", model, 60, seq_len=24)
    statistics, before = compute_statistics(model, part), model.fingerprint
    model.module.config.rms_norm_eps = 0.25
    assert model.fingerprint != before
    with pytest.raises(StatisticsError, match="another model"):
        ablate(model, data, "1.2", "mean", statistics=statistics)
    model.module.config.rms_norm_eps = 1e-6
    assert model.fingerprint == before


def identity(module: Any) -> None:
    module.model.layers[1].mlp.act_fn = nn.Identity()


def eps(module: Any) -> None:
    module.model.layers[1].input_layernorm.variance_epsilon = 0.5


def scaling(module: Any) -> None:
    module.model.layers[1].self_attn.scaling = 3.0


def forwarded(module: Any) -> None:
    module.model.layers[1].mlp.forward = lambda hidden: hidden * 0.5


class Halved(tf.models.llama.modeling_llama.LlamaMLP):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden) / 2


def own_class(module: Any) -> None:
    module.model.layers[1].mlp.__class__ = Halved


def rotation(module: Any) -> None:
    """A table that is not saved, and no weight."""
    module.model.rotary_emb.inv_freq *= 0.5


EDITS = [identity, eps, scaling, forwarded, own_class, rotation]


@pytest.mark.parametrize("edit", EDITS)
def test_a_part_that_is_edited_after_loading(folder: Path, edit: Callable[[Any], None]) -> None:
    model = load_model(str(folder))
    before, its = model.fingerprint, logits(model)
    edit(model.module)
    assert not torch.allclose(logits(model), its, atol=1e-5)
    assert model.fingerprint != before


def test_a_timm_module_edited_in_memory() -> None:
    model = tiny.build("VisionTransformer")
    before = model.fingerprint
    model.module.global_pool = "avg"
    pooled = model.fingerprint
    model.module.global_pool = "token"
    model.module.blocks[1].attn.scale *= 2
    assert len({before, pooled, model.fingerprint}) == 3
    model.module.blocks[1].attn.scale /= 2
    assert model.fingerprint == before


def tiny_llama() -> tf.LlamaForCausalLM:
    torch.manual_seed(0)
    return tf.LlamaForCausalLM(tf.LlamaConfig(**LLAMA)).eval()


@pytest.mark.parametrize("edit", EDITS)
def test_a_module_edited_before_it_is_loaded(edit: Callable[[Any], None]) -> None:
    plain, edited = tiny_llama(), tiny_llama()
    edit(edited)
    with torch.inference_mode():
        assert not torch.allclose(plain(input_ids=IDS).logits, edited(input_ids=IDS).logits, atol=1e-5)
    mine, other = load_model(plain), load_model(edited)
    assert weights_digest(mine.module) == weights_digest(other.module)
    assert mine.fingerprint == load_model(tiny_llama()).fingerprint != other.fingerprint


def halved(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output / 2


@dataclasses.dataclass
class Scaled:
    """A hook of a kind that cannot be a dictionary's key."""

    by: float

    def __call__(self, _module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output * self.by


class Slotted:
    """Which no weak reference can be made to."""

    __slots__ = ()

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        return output


def test_forwards_of_a_person_s_own_are_told_apart_in_this_process() -> None:
    def forwarded_by(scale: float) -> tf.LlamaForCausalLM:
        module = tiny_llama()
        module.model.layers[1].mlp.forward = lambda hidden: hidden * scale
        return module

    modules = [tiny_llama(), forwarded_by(0.5), forwarded_by(0.1)]
    models = list(map(load_model, modules))
    assert len({model.fingerprint for model in models}) == 3
    assert [load_model(module).fingerprint for module in modules] == [model.fingerprint for model in models]


def test_a_class_written_anew_under_its_name_is_another() -> None:
    def activated_by(factor: str, names: dict[str, Any]) -> str:
        written = f"""
            class Own(nn.SiLU):
                factor = {factor}
                @torch.no_grad()
                def forward(self, hidden):
                    return super().forward(hidden) * self.factor if "a" in {{"a", "b", "c"}} else hidden
        """
        exec(textwrap.dedent(written), names)
        module = tiny_llama()
        for layer in module.model.layers:
            layer.mlp.act_fn = names["Own"]()
        return load_model(module).fingerprint

    notebook = {"__name__": "__main__", "nn": nn, "torch": torch}
    first, second = activated_by("1.0", notebook), activated_by("1.5", notebook)
    assert activated_by("1.0", notebook) == first != second


def test_torch_compile_makes_no_other_model_of_timm_s() -> None:
    """It marks the module that it is given."""
    made = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 4, "num_classes": 5}
    module = timm.create_model("vit_tiny_patch16_224", **made).eval()
    before = load_model(module).fingerprint
    assert load_model(torch.compile(module)).fingerprint == before


@dataclasses.dataclass
class Options:
    factor: float


class Holding(nn.Module):
    """A part that multiplies by something that it holds, and notes what it was given."""

    def __init__(self, held: Any, saved: bool = True) -> None:
        super().__init__()
        self.calls, self.last, self.inputs = 0, None, []
        if saved:
            self.held = held
        else:
            self.register_buffer("held", held, persistent=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.calls, self.last = self.calls + 1, hidden.detach()
        self.inputs.append(float(hidden.detach().sum()))
        return hidden * float(getattr(self.held, "factor", self.held))


def holding(held: Any, saved: bool = True) -> LoadedModel:
    module = tiny_llama()
    module.model.layers[1].mlp.act_fn = Holding(held, saved)
    return load_model(module)


@pytest.mark.parametrize(
    "held",
    [
        lambda number: Holding(torch.tensor(number)).held,
        lambda number: torch.tensor(number, requires_grad=True),
        np.float32,
        lambda number: np.asarray(number),
        Options,
        lambda number: types.SimpleNamespace(factor=number),
    ],
)
def test_what_an_own_part_holds_beside_its_weights_is_a_setting(held: Callable[[float], Any]) -> None:
    first, again, other = (holding(held(number)).fingerprint for number in (2.0, 2.0, 3.0))
    assert first == again != other


def test_so_are_tensors_that_an_own_part_does_not_save() -> None:
    first, again, other = (holding(torch.tensor(number), saved=False).fingerprint for number in (2.0, 2.0, 3.0))
    assert first == again != other


def test_what_an_own_part_notes_about_its_passes_is_no_setting() -> None:
    model = holding(torch.tensor(2.0))
    before = model.fingerprint
    with torch.no_grad():
        model.module(torch.tensor([[5, 6, 7]]))
    assert model.fingerprint == before
    module = tiny_llama()
    module.model.layers[1].mlp.act_fn = Holding(torch.tensor(2.0))
    module(torch.tensor([[5, 6, 7]]))  # noted before it is loaded
    assert load_model(module).fingerprint == before
    model.module.model.layers[1].mlp.act_fn.held = torch.tensor(3.0)
    assert model.fingerprint != before


class Chosen(nn.Module):
    def forward(self, hidden: torch.Tensor, way: str = "plain") -> torch.Tensor:
        return hidden if way in {"plain", "usual", "none", "off"} else hidden / 2


@pytest.mark.slow
def test_an_own_class_is_told_alike_in_every_process() -> None:
    asked = "from tests.models.test_settings import Chosen, code_of; print(code_of(Chosen)['code'])"
    found = {
        subprocess.run(
            [sys.executable, "-c", asked], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "123"
    }
    assert found == {f"{code_of(Chosen)['code']}\n".encode()}


def test_hooks_of_a_person_s_own_are_told_apart_in_this_process() -> None:
    hooks = [halved, Scaled(2), Scaled(3), Scaled(4).__call__, Scaled(5).__call__, functools.partial(halved), Slotted()]
    module, found = tiny_llama(), [[]]
    for hook in hooks:
        handle = module.model.layers[1].mlp.register_forward_hook(hook)
        found.append(hooks_of(module))
        assert hooks_of(module) == found[-1]
        handle.remove()
    assert len(set(map(str, found))) == len(found) and hooks_of(module) == []
    module.model.layers[1].mlp.register_forward_hook(halved)
    assert hooks_of(module) == found[1] and hooks_of(load_model(module).module) == found[1]


def test_no_run_of_a_hooked_model_is_taken_for_the_plain_one_s(folder: Path, tmp_path: Path) -> None:
    model = load_model(str(folder))
    data = load_data("python-docs", model, 60, seq_len=24)

    def swept() -> float:
        return sweep(model, data, "zero", heads="1.2", random_sets=0, cache=tmp_path).baseline["loss"]

    plain, before = swept(), model.fingerprint
    handle = model.blocks[0].register_forward_hook(Scaled(3))
    hooked, itself = swept(), ablate(model, data, "1.2", "zero").to_dict()["baseline"]["loss"]
    assert model.fingerprint == before, "most hooks only look on: statistics still fit"
    assert len(kept_sweeps(model, tmp_path)) == 1
    handle.remove()
    assert hooked == pytest.approx(itself) != plain
    assert swept() == plain


def test_an_adapter_s_scaling_is_told_apart() -> None:
    peft = pytest.importorskip("peft")
    found = []
    for alpha in (2, 2, 8):
        torch.manual_seed(0)
        settings = peft.LoraConfig(r=2, lora_alpha=alpha, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
        wrapped = peft.get_peft_model(tiny_llama(), settings).eval()
        found.append((load_model(wrapped), logits(load_model(wrapped))))
    (one, its), (same, same_), (other, other_) = found
    assert torch.equal(its, same_) and not torch.allclose(its, other_, atol=1e-5)
    assert weights_digest(one.module) == weights_digest(other.module)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    before = one.fingerprint
    one.module.model.layers[0].self_attn.q_proj.scaling["default"] = 7.0
    assert one.fingerprint != before
    one.module.model.layers[0].self_attn.q_proj.scaling["default"] = 1.0
    assert one.fingerprint == before
    one.module.model.layers[0].self_attn.q_proj.enable_adapters(False)
    assert one.fingerprint != before


def test_what_the_engine_does_during_a_pass_is_no_edit(llama: LoadedModel) -> None:
    """Another thread may ask meanwhile."""
    data = load_data("python-docs", llama, 30, seq_len=24)
    before, seen = llama.fingerprint, []
    handle = llama.blocks[2].register_forward_hook(lambda *_: seen.append(settings_of(llama.module, llama.built)))
    quiet = settings_of(llama.module, llama.built)
    ablate(llama, data, "1.2", "zero")
    handle.remove()
    assert len(seen) > 1 and all(one == quiet for one in seen)
    assert llama.fingerprint == before


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_passes_change_no_fingerprint_and_nothing_is_taken_for_edited(family: str) -> None:
    model = tiny.build(family)
    module: Any = model.module
    model.built = parts_of(module)
    before = model.fingerprint
    with torch.inference_mode():
        for length in (12, 5):
            module(**tiny.batch(model, length=length).inputs)
    assert model.fingerprint == before
    if hasattr(module, "config"):
        assert unlike_built(module) == set() == set(settings_of(module, model.built)["parts"])
        assert settings_of(module) == settings_by(copy.deepcopy(module.config), type(module).__name__)
        fresh = tf.AutoConfig.for_model(**module.config.to_dict())
        assert settings_by(fresh, type(module).__name__) == settings_of(module)
    else:
        name, arguments = tiny.TIMM[family]
        assert settings_of(timm.create_model(name, **arguments)) == settings_of(module)


def test_a_twin_has_its_model_s_settings(opt_mini: LoadedModel, llama: LoadedModel) -> None:
    assert "-" not in random_twin(opt_mini, 3).fingerprint
    assert random_twin(llama, 3).fingerprint.partition("-")[2] == llama.fingerprint.partition("-")[2] != ""


def test_looking_at_settings_takes_next_to_nothing(opt_mini: LoadedModel, vit_mini: LoadedModel) -> None:
    for model in (opt_mini, vit_mini):
        settings_of(model.module, model.built)
        took = []
        for _ in range(20):
            began = time.perf_counter()
            settings_of(model.module, model.built)
            took.append(time.perf_counter() - began)
        assert min(took) < 0.02  # some 2 ms on a quiet machine
