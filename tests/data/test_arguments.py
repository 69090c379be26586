"""What is handed to the functions that measure in place of a model, data, heads, positions or numbers: a sentence, or what is meant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ablation_core
from ablation_core import load_data, load_model
from ablation_core.data.dataset import Data
from ablation_core.data.positions import Positions
from ablation_core.errors import AblationError, DataError, MethodError, ModelError, SelectionError
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection

OF_MODEL_AND_DATA = {
    "ablate": ("3.2",),
    "estimate": (),
    "sweep": (),
    "curve": (),
    "noise_floor": ("3.2",),
    "interact": ("3.2 5.0",),
    "describe_head": ("3.2",),
    "head_scores": (),
    "examples": ("3.2",),
    "compute_statistics": (),
    "direct_effects": (),
    "position_map": (),
    "compare": (),
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("opt-mini")


@pytest.fixture(scope="module")
def data(model: LoadedModel) -> Data:
    return load_data("python-docs", model, predictions=20, seq_len=16)


@pytest.mark.parametrize("name", OF_MODEL_AND_DATA)
def test_a_reference_a_list_or_nothing_in_place_of_what_is_loaded(name: str, model: LoadedModel, data: Data) -> None:
    function: Callable[..., Any] = getattr(ablation_core, name)
    rest = OF_MODEL_AND_DATA[name]
    with pytest.raises(ModelError, match=r"load_model\('opt-mini'\)"):
        function("opt-mini", data, *rest)
    with pytest.raises(ModelError, match="the model comes first"):
        function(data, model, *rest)
    for given in ("python-docs", ["A text."], None, np.zeros((2, 3))):
        with pytest.raises(DataError, match="load_data"):
            function(model, given, *rest)
    with pytest.raises(DataError, match=r"load_data\('python-docs', model\)"):
        function(model=model, data="python-docs", **({"select": rest[0]} if rest else {}))


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ((3, 2), "3.2"),
        ((3, 2, 5), "3.2:5"),
        (["3.2", "5.0"], "3.2 5.0"),
        (["3.2:1-4", (5, 0)], "3.2:1-4 5.0"),
        (np.array([[3, 2], [5, 0]]), "3.2 5.0"),
    ],
)
def test_selections_as_people_write_them(model: LoadedModel, select: Any, expected: str) -> None:
    assert Selection.read(select, model.shape) == Selection.parse(expected, model.shape)


@pytest.mark.parametrize("select", [(3,), (3, 2, 1, 4), [3, 2], 3, None, [(3.5, 2)], [True, False]])
def test_selections_that_say_nothing(model: LoadedModel, select: Any) -> None:
    with pytest.raises(SelectionError, match="write heads and neurons as text"):
        Selection.read(select, model.shape)


@pytest.mark.parametrize(("given", "expected"), [(3, "3"), (-2, "-2"), ([1, 2], "1,2"), (("3-7", -1), "3-7,-1")])
def test_positions_as_people_write_them(given: Any, expected: str) -> None:
    assert Positions.read(given) == Positions.parse(expected)


@pytest.mark.parametrize("given", [None, 1.5, True, [], [None]])
def test_positions_that_say_nothing(given: Any) -> None:
    with pytest.raises(DataError, match="as positions"):
        Positions.read(given)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"seed": 1.5}, DataError), ({"seed": "a"}, DataError), ({"bins": 0}, MethodError), ({"bins": 1.5}, MethodError),
        ({"method": None}, MethodError), ({"method": 3}, MethodError), ({"method": [["zero"]]}, MethodError),
    ],
)  # fmt: skip
def test_arguments_of_no_use(model: LoadedModel, data: Data, what: dict[str, Any], error: type[AblationError]) -> None:
    with pytest.raises(error):
        ablation_core.ablate(model, data, "3.2", **({"method": "zero"} | what))


@pytest.mark.parametrize("what", [{"random_sets": 1.5}, {"random_sets": -1}, {"heads": (3,)}])
def test_a_sweep_of_no_use(model: LoadedModel, data: Data, tmp_path: Path, what: dict[str, Any]) -> None:
    with pytest.raises(AblationError):
        ablation_core.sweep(model, data, "zero", cache=tmp_path, **what)


@pytest.mark.parametrize("what", [{"percents": ["a"]}, {"percents": 150}, {"seeds": "a"}, {"seeds": [1.5]}])
def test_a_curve_of_no_use(model: LoadedModel, data: Data, tmp_path: Path, what: dict[str, Any]) -> None:
    with pytest.raises(AblationError):
        ablation_core.curve(model, data, "zero", cache=tmp_path, **what)


def test_a_dtype_and_a_folder_as_torch_and_the_shell_have_them(tmp_path: Path) -> None:
    loaded = load_model("opt-mini", dtype=torch.float32, cache_dir=str(tmp_path))  # type: ignore[arg-type]
    assert loaded.dtype == "float32"


def test_a_set_of_texts_is_refused(model: LoadedModel) -> None:
    with pytest.raises(DataError, match="order"):
        load_data({"A text.", "Another."}, model)
