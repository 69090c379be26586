"""Hostile input: whatever is typed, linked or laid into a folder ends in an answer or a sentence.

No traceback, no hang, and no file outside the cache folder. `ABLATION_FUZZ=10` tries ten times as much as the default.
"""

import contextlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from streamlit.testing.v1 import AppTest

from ablation_core import __main__ as cli
from ablation_core import bundled, load_model
from ablation_core.activations.collect import compute_statistics
from ablation_core.activations.files import list_statistics, load_statistics, save_statistics
from ablation_core.data import user_input
from ablation_core.data.load import load_data
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.errors import AblationError, ModelError, SelectionError, StatisticsError
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.pruning import read_seeds
from ablation_core.selection import ModelShape, Selection
from ablation_core.server import access
from ablation_core.storage import CACHE
from ablation_core.ui import shared
from ablation_core.ui.runs import controls as run_controls
from tests.conftest import PAGES, ROOT, watching

pytestmark = pytest.mark.slow
DEPTH = int(os.environ.get("ABLATION_FUZZ", "1"))
SECONDS = 60  # longer than any of these may take, however busy the machine
QUIET = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": False,
    "phases": [Phase.explicit, Phase.generate],  # a smaller example is not worth the minutes
}

ODD_TEXT = st.one_of(
    st.sampled_from(
        [
            "", " ", ".", "..", "/", "~", "*", "*.*", "\0", "a\0b", "-", "--", "None", "nan", "inf", "1e9", "٣.٢", "３.2",
            "../../etc/passwd", "/etc/passwd", "/dev/zero", "/proc/self/environ", "file:///etc/passwd", "C:\\x", "%00",
            "%2e%2e%2f", "\udcff", "\ud800", "🦜", "‮txt", "<script>alert(1)</script>", "$(id)", "`id`", "'; DROP TABLE",
            "{0.__class__}", "%s%n", "text:", "text:.", "text:/dev/null", "images:", "images:/", "images:\0", "text:\0",
            "x" * 300, "text:" + "x" * 5000, "images:" + "y" * 5000, "[" * 3000, "9" * 5000, "owner/" + "n" * 300,
            "timm/", "timm/..", "hf-hub:", "hf-hub:a/b", "a/b@..", "a/b@" + "c" * 300, "//", "a//b", "./a/b", "a/b/c",
        ]
    ),
    st.text(max_size=30),
)  # fmt: skip
ODD_NUMBER = st.one_of(
    st.integers(-3, 60).map(str),
    st.integers().map(str),
    st.sampled_from(
        ["1e3", "nan", "-0", "+5", "0x10", " 7 ", "1_000", "٤", "", "9" * 5000, str(2**31), str(2**63), "-1"]
    ),
)
NUMBERS = st.lists(st.one_of(ODD_NUMBER, st.integers(0, 100).map(str)), min_size=1, max_size=3)
SELECT = st.one_of(
    ODD_TEXT,
    st.text("0123456789.:*,- ", max_size=20),
    st.sampled_from(
        ["0.0", "1.1:0-3", "5.*", "5.5:31", "0.6", "6.0", "0.0:32", "0.0:5-1", "0.0:,", "0.0:1-2-3", "*.5:0"]
    ),
)
MODELS = st.one_of(st.sampled_from(["opt-mini"] * 6 + ["vit-mini", "roberta-mini", "smollm2-135m"]), ODD_TEXT)
DATA = st.one_of(
    st.sampled_from(
        ["python-docs", "fashion-mnist", "fashion-mnist:full", "text:notes.txt", "images:pictures", "text:."]
    ),
    ODD_TEXT,
)
METHOD = st.one_of(st.sampled_from(["zero", "mean", "median", "peak", "resample-dataset", "all"]), ODD_TEXT)


def flag(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    """The option or not; now and then written as one word, or without its value."""
    written = st.one_of(values.map(lambda v: [name, v]), values.map(lambda v: [f"{name}={v}"]), st.just([name]))
    return st.one_of(st.just([]), st.just([]), values.map(lambda v: [name, v]), written)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with any of its options; small, so that what succeeds is quick."""
    command = draw(st.sampled_from(["ablate"] * 5 + ["stats", "sweep", "curve", "models", "get", ""]))
    if command == "get":  # nothing is asked of the outside
        return ["get", draw(ODD_TEXT.filter(lambda ref: ref not in ("fashion-mnist", "smollm2-135m")))]
    if command == "models":
        return ["models", *draw(flag("--json", ODD_TEXT)), *draw(flag("--families", st.just("")))]
    parts = [[draw(MODELS)], ["--seq-len", "12"], ["--predictions", draw(st.sampled_from(["1", "12", "40"]))]]
    for name, values in (
        ("--data", DATA), ("--predictions", st.sampled_from(["0", "-1", "x", "1.5"])), ("--seq-len", ODD_NUMBER),
        ("--batch-size", ODD_NUMBER), ("--seed", ODD_NUMBER), ("--device", ODD_TEXT), ("--dtype", ODD_TEXT),
    ):  # fmt: skip
        parts.append(draw(flag(name, values)))
    if command == "ablate":
        parts.append(["--select", draw(SELECT)])
    if command in ("ablate", "sweep", "curve"):
        parts += draw(st.lists(METHOD.map(lambda name: ["--method", name]), max_size=2))
        parts.append(draw(flag("--statistics", st.one_of(st.just("notes.txt"), ODD_TEXT))))
    if command == "sweep":  # a whole sweep is another test's: this one ends at its data, model or method
        parts.append(["--method", "no such method"])
    if command == "curve":
        parts += [["--seeds", *draw(NUMBERS)], ["--percents", *draw(NUMBERS)]]
    parts.append(draw(flag("--bins", ODD_NUMBER)))
    parts.append(
        draw(
            st.sampled_from(
                [[], ["--json"], ["--spare-first"], ["--keep-first"], ["--whole-heads"], ["--binning", "x"]]
            )
        )
    )
    return [command, *(word for part in draw(st.permutations(parts)) for word in part)]


def outside(written: list[str], cache: Path) -> list[str]:
    """What was written elsewhere than in the cache folder, but for Python's own compiled modules and devices."""
    paths = (path for path in written if "__pycache__" not in path and not path.startswith("/dev/"))
    return [path for path in paths if not Path(path).resolve().is_relative_to(cache.resolve())]


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with size and time of change."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, few_learned_from: None) -> Iterator[Path]:
    """A working folder with a text, pictures and a cache folder; models are loaded once for the module."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "notes.txt").write_text("All work and no play makes a dull test. " * 60)
    (folder / "pictures" / "Bag").mkdir(parents=True)
    (folder / "pictures" / "Bag" / "broken.png").write_bytes(b"not a picture")
    shutil.copytree(CACHE / "opt-mini", folder / "cache" / "opt-mini")
    kept: dict[tuple, LoadedModel] = {}

    def load(
        ref: Any, device: str = "auto", dtype: str = "auto", cache_dir: Path = CACHE, *parts: Any, **named: Any
    ) -> LoadedModel:
        if (ref, device, dtype) not in kept:
            model = load_model(ref, device, dtype, cache_dir, *parts, **named)
            if ref not in bundled.NAMES:
                return model
            kept[ref, device, dtype] = model
        return kept[ref, device, dtype]

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr("ablation_core.loading.load.load_model", load)
        patch.setenv("HOME", str(folder))
        patch.setenv("COLUMNS", "80")
        for name in bundled.NAMES:  # the libraries that they import may prepare folders of their own
            load(name, "auto", "auto", folder / "cache")
        yield folder


@settings(max_examples=2000 * DEPTH, **QUIET)
@given(command_lines())
@example(["ablate", "opt-mini", "--select", "0.0", "--statistics", "x" * 300])
@example(["ablate", "opt-mini", "--select", "0.0", "--data", "images:\0"])
@example(["stats", "opt-mini", "--bins", "9" * 15, "--predictions", "20"])
@example(["curve", "opt-mini", "--percents", "-5", "200", "--method", "zero", "--predictions", "20"])
@example(["ablate", "opt-mini", "--select", "0.0", "--method", "zero", "--seed", "9" * 400, "--predictions", "20"])
def test_any_command_line_ends_with_an_answer_or_a_sentence(place: Path, arguments: list[str]) -> None:
    started = time.monotonic()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), watching() as seen:
        try:
            code = cli.main([*arguments, "--cache-dir", str(place / "cache")])
        except SystemExit as ended:  # argparse's way to say how it is used
            code = ended.code
    assert code in (0, 1, 2)
    assert "Traceback" not in err.getvalue()
    if code == 1:
        *_, last = err.getvalue().strip().splitlines()
        assert "error: " in err.getvalue() and last
        assert out.getvalue() == ""
    if code == 0 and "--json" in arguments:
        json.loads(out.getvalue())
    assert time.monotonic() - started < SECONDS
    assert not outside(seen.written, place / "cache")


@pytest.mark.parametrize("where", ["notes.txt", "/dev/null", "/proc/nowhere", "x" * 300, "notes.txt/below", ""])
@pytest.mark.parametrize("command", [["models"], ["ablate", "smollm2-135m", "--select", "0.0"], ["stats", "opt-mini"]])
def test_any_cache_folder_gets_an_answer_or_a_sentence(place: Path, where: str, command: list[str]) -> None:
    (place / "empty").mkdir(exist_ok=True)
    budget = [] if command == ["models"] else ["--predictions", "5", "--seq-len", "6"]
    err = io.StringIO()
    with contextlib.chdir(place / "empty"), contextlib.redirect_stderr(err):
        assert cli.main([*command, *budget, "--cache-dir", where]) in (0, 1)
    assert "Traceback" not in err.getvalue()


@settings(max_examples=500 * DEPTH, **QUIET)
@given(
    st.one_of(SELECT, st.text(max_size=60)),
    st.lists(st.integers(1, 7), min_size=1, max_size=4),
    st.integers(1, 9),
)
def test_any_selection_is_read_back_or_refused(text: str, heads: list[int], head_dim: int) -> None:
    shape = ModelShape(tuple(heads), head_dim)
    try:
        selection = Selection.parse(text, shape)
    except SelectionError as error:
        assert str(error).endswith(".")
        return
    assert Selection.parse(str(selection), shape) == selection
    assert len(selection) == sum(selection.mask(layer).sum() for layer in range(shape.layers)) <= shape.neurons


@pytest.fixture(scope="module")
def statistics_file(opt_mini: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = load_data("python-docs", opt_mini, predictions=22, seq_len=12, split="statistics")
    return save_statistics(compute_statistics(opt_mini, data, bins=4), tmp_path_factory.mktemp("statistics"))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
FIELDS = ("format", "model", "model_fingerprint", "data", "sequences", "tokens", "seq_len", "bins", "binning", "seed")


@settings(max_examples=150 * DEPTH, **QUIET)
@given(st.data())
def test_any_change_of_a_statistics_file_is_noticed(statistics_file: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = statistics_file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    kind = data.draw(st.sampled_from(["bytes", "length", "field", "provenance", "shape", "number", "offsets", "deep"]))
    arrays = load_file(statistics_file)
    path = tmp_path / "model" / "changed.safetensors"
    path.parent.mkdir(exist_ok=True)
    if kind in ("bytes", "length"):
        spot = data.draw(st.integers(0, 7 if kind == "length" else len(content) - 1))
        changed = bytearray(content)
        changed[spot] ^= data.draw(st.integers(1, 255))
        path.write_bytes(
            bytes(changed) if kind == "length" else bytes(changed[: data.draw(st.integers(spot + 1, len(content)))])
        )
    elif kind in ("shape", "number"):
        name = data.draw(st.sampled_from(sorted(arrays)))
        if kind == "shape":
            arrays[name] = np.ascontiguousarray(arrays[name][..., :-1])
        else:
            flat = arrays[name].reshape(-1)
            flat[data.draw(st.integers(0, flat.size - 1))] += 1 if arrays[name].dtype.kind == "u" else np.nan
        save_file(arrays, path, header["__metadata__"])
    elif kind == "offsets":
        name = data.draw(st.sampled_from(sorted(arrays)))
        entry = header[name]
        wrong = data.draw(
            st.sampled_from(
                [
                    ("shape", [2**40, 2**40]),
                    ("shape", [-1]),
                    ("data_offsets", [0, 2**60]),
                    ("dtype", "F128"),
                    ("data_offsets", [5, 1]),
                ]
            )
        )
        entry[wrong[0]] = wrong[1]
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    else:
        provenance = json.loads(header["__metadata__"]["provenance"])
        if kind == "field":
            name = data.draw(st.sampled_from(FIELDS))
            provenance[name] = data.draw(JSON.filter(lambda value: value != provenance[name]))
            text = json.dumps(provenance)
        else:
            text = (
                "[" * 100_000
                if kind == "deep"
                else data.draw(st.one_of(ODD_TEXT.filter(str.isprintable), JSON.map(json.dumps)))
            )
        save_file(arrays, path, header["__metadata__"] | {"provenance": text})
    if path.read_bytes() == content:
        return
    with pytest.raises(StatisticsError) as refused:
        load_statistics(path)
    assert str(path) in str(refused.value)
    list_statistics(tmp_path)  # lists what can be read, and a sentence for the rest


CONFIG_FIELDS = (
    "model_type", "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "ffn_dim",
    "word_embed_proj_dim", "max_position_embeddings", "pad_token_id", "torch_dtype", "dtype", "activation_function",
    "quantization_config", "auto_map", "is_encoder_decoder", "id2label", "architecture", "num_classes",
)  # fmt: skip


@settings(max_examples=40 * DEPTH, **QUIET)
@given(
    st.sampled_from(["opt-mini", "vit-mini"]),
    st.sampled_from(CONFIG_FIELDS),
    st.one_of(
        JSON, st.sampled_from([0, -1, 10**4, "../..", ["x"], {"quant_method": "gptq"}, "OPTForCausalLM", "gpt2"])
    ),
)
@example("opt-mini", "auto_map", {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
def test_any_change_of_a_models_settings_is_survived(tmp_path: Path, name: str, field: str, value: object) -> None:
    folder = tmp_path / "model"
    if not folder.exists() or not (folder / name).exists():
        shutil.copytree(bundled.FOLDER / name, folder / name)
        (folder / name / "evil.py").write_text("open('written', 'w').write('by the model')")
    config = json.loads((bundled.FOLDER / name / "config.json").read_text())
    (folder / name / "config.json").write_text(json.dumps(config | {field: value}))
    before = listing(tmp_path)
    with contextlib.chdir(tmp_path), contextlib.suppress(ModelError):
        model = load_model(str(folder / name))
        assert model.shape.neurons > 0
    assert listing(tmp_path) == before


PARAMETERS = {
    "model": MODELS.filter(lambda ref: ref != "smollm2-135m"),  # its fetching is another test's
    "text": DATA,
    "images": DATA,
    "beside": DATA,
    "shown": st.one_of(ODD_TEXT, st.sampled_from(["histogram", "two data sets"])),
    "predictions": st.one_of(ODD_NUMBER, st.sampled_from(["500", "1000"])),
    "select": SELECT,
    "neuron": SELECT,
    "head": SELECT,
    "method": METHOD,
    "methods": METHOD,
    "bins": st.one_of(ODD_NUMBER, st.sampled_from(["20", "100", "300"])),
    "seeds": st.one_of(ODD_TEXT, NUMBERS.map(" ".join), NUMBERS.map(",".join)),
    "step": ODD_NUMBER,
    "metric": st.one_of(ODD_TEXT, st.sampled_from(["loss", "kl", "top1"])),
    "prompt": st.one_of(ODD_TEXT, st.text(max_size=200), st.just("word " * 3000)),
    "gaps": st.one_of(ODD_TEXT, st.just("a ___ b"), st.just("___ " * 300), st.just("[MASK]\\1")),
    "list": ODD_TEXT,
    "log": ODD_TEXT,
    "toy-place": ODD_NUMBER,
    "kind": ODD_TEXT,
    "no_such": ODD_TEXT,
}


def addressable(text: str) -> bool:
    """No address can hold half of a character: a browser makes a question mark of it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def addresses() -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries({}, optional={name: values.filter(addressable) for name, values in PARAMETERS.items()})


@settings(max_examples=2000 * DEPTH, **QUIET)
@given(addresses())
@example({"gaps": "[MASK]\\1", "model": "roberta-mini"})
@example({"seeds": "9" * 5000, "prompt": "word " * 3000})
def test_whatever_an_address_says_is_read_or_refused_with_a_sentence(place: Path, parameters: dict[str, str]) -> None:
    """What the pages do with an address's free texts, without drawing: models, data, selections, seeds, prompts."""
    started = time.monotonic()
    with watching() as seen:
        model = said(lambda: shared.shared_model(parameters.get("model", "opt-mini"))) or shared.shared_model(
            "opt-mini"
        )
        kind = "images" if model.modality == "vision" else "text"
        ref = parameters.get(kind, DEFAULT_DATA[model.modality])
        for other in (ref, parameters.get("beside", ref)):
            if said(lambda other=other: shared.shared_data(model, other, 500, "evaluation")):
                said(lambda other=other: shared.find_shared_statistics(model, other))
        for name in ("select", "neuron", "head"):
            said(lambda name=name: Selection.parse(parameters.get(name, ""), model.shape))
        said(lambda: read_seeds(parameters.get("seeds", "")))
        if kind == "text":
            text = parameters.get("gaps" if model.modality == "masked" else "prompt", "")
            said(lambda: user_input.prompt(model, text, DEFAULT_DATA[model.modality]))
        access.decide({"ABLATION_SHARED": "1"}, CACHE).refusals(parameters)
    assert seen.written == [path for path in seen.written if "__pycache__" in path or path.startswith("/dev/")]
    assert time.monotonic() - started < SECONDS


def said(action: Callable[[], object]) -> Any:
    """What an action gives; None where it ended with a sentence."""
    try:
        return action()
    except AblationError as error:
        assert str(error).strip() and "\n" not in str(error).strip()
        return None


def check_page(page: str, parameters: dict[str, str]) -> None:
    started = time.monotonic()
    with watching() as seen:
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=4 * SECONDS)
        if page != "app.py":
            at.switch_page(page)
        at.query_params.update({"predictions": "500"} | parameters)
        at.run()
    assert not at.exception, at.exception[0].value
    assert all(error.value for error in at.error)
    assert not [path for path in seen.written if str(CACHE.parent) in path and "__pycache__" not in path]
    assert time.monotonic() - started < 4 * SECONDS


@settings(max_examples=5 * DEPTH, **QUIET)
@given(st.sampled_from(["app.py", "pages/ablate.py"]), addresses())
@example("app.py", {"text": "images:\0", "neuron": "\0"})
@example("app.py", {"text": "text:" + "x" * 5000})
@example("pages/ablate.py", {"model": "vit-mini", "images": "images:" + "y" * 5000})
@example("pages/ablate.py", {"predictions": "nan", "bins": "-1", "method": "best", "metric": "<b>", "select": "*.*"})
def test_any_address_opens_with_a_page_or_a_sentence(page: str, parameters: dict[str, str]) -> None:
    check_page(page, parameters)


@settings(max_examples=150 * DEPTH, **QUIET)
@given(st.sampled_from(PAGES), addresses())
def test_any_address_of_every_page_opens_it_or_says_a_sentence(page: str, parameters: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            run_controls, "begin_once", lambda *_: None
        )  # an estimate of every odd view would be another test's
        check_page(page, parameters)


@pytest.mark.parametrize(
    ("page", "key"),
    [
        ("pages/distributions.py", "list"), ("pages/distributions.py", "odd"), ("pages/distributions.py", "shown"),
        ("app.py", "list"), ("app.py", "prompt"), ("app.py", "model"), ("app.py", "text"),
        ("pages/ablate.py", "metric"), ("pages/ablate.py", "method"), ("pages/head_map.py", "metric"),
        ("pages/head_map.py", "methods"), ("pages/pruning_curves.py", "metric"), ("pages/pruning_curves.py", "methods"),
        ("pages/learn.py", "kind"),
    ],
)  # fmt: skip
def test_an_empty_value_in_the_address_is_no_choice(page: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_controls, "begin_once", lambda *_: None)
    check_page(page, {"list": "whole model", key: ""} if key == "odd" else {key: ""})
