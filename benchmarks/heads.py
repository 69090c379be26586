"""What head scores and examples cost, in plain eager passes over the same data; and the first page's first picture.

    python -m benchmarks.heads  # leaves benchmarks/results/heads.json

Everything is timed in one process and one thread, in turns, by processor time; a ratio is the median over the turns. The
first picture is what a server that is up spends until a new visitor has the map and the head's figures: one run of the
page's script, in Streamlit's own harness, with no model in memory. A card is what its figures take when it is first opened.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ablation_core import direct_effects, head_scores, load_data, load_model, writes
from ablation_core.data.dataset import Data
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.errors import ModelError
from ablation_core.heads.attention import layer_patterns
from ablation_core.heads.examples import LayerValues
from ablation_core.models.loaded import LoadedModel
from benchmarks.measure import machine, seconds, write

WANTED = {"scores": 1.5, "examples": 1.2, "first picture, seconds": 1.0}


def passes(model: LoadedModel, data: Data, turns: int) -> dict[str, float]:
    """Scores of all heads, and examples of a layer, in plain passes with eager attention."""
    switch = getattr(model.module, "set_attn_implementation", None)

    @torch.inference_mode()
    def plain() -> None:
        for batch in data:
            model.module(**batch.inputs)

    def eager() -> float:
        if switch:
            switch("eager")
        took = seconds(plain)
        if switch:
            switch("sdpa")
        return took

    plain()
    rows = []
    for _ in range(turns):
        one = eager()
        scores = seconds(lambda: head_scores(model, data))
        examples = seconds(lambda: LayerValues.collect(model, data, model.num_layers - 1))
        rows.append((scores / one, examples / one))
    scores, examples = (round(statistics.median(column), 2) for column in zip(*rows, strict=True))
    return {"scores": scores, "examples": examples}


def cards(model: LoadedModel, data: Data) -> dict[str, float | None]:
    """Processor seconds of what each card of the first page computes when it is first opened; None where it is refused."""
    layer = model.num_layers - 1
    acts: dict[str, Callable[[], object]] = {
        "where it looks": lambda: layer_patterns(model, data.rows(range(1)), layer),
        "what kind of head it is": lambda: head_scores(model, data),
        "when it is active": lambda: LayerValues.collect(model, data, layer),
        "what it writes": lambda: (writes(model, f"{layer}.0", data), direct_effects(model, data)),
    }
    found: dict[str, float | None] = {}
    for name, act in acts.items():
        try:
            found[name] = round(seconds(act), 2)
        except ModelError:
            found[name] = None
    return found


def first_picture(ref: str) -> float:
    """Processor seconds of this thread: the harness runs the script in one of its own, beside those of other visitors."""
    from streamlit.testing.v1 import AppTest

    def opened() -> None:
        at = AppTest.from_file(str(Path(__file__).parent.parent / "app.py"), default_timeout=300)
        at.query_params["model"] = ref
        at.run()
        assert not at.exception and len(at.get("vega_lite_chart")) == 3

    opened()  # imports, and what all visitors share
    return round(statistics.median(seconds(opened) for _ in range(3)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["opt-mini", "roberta-mini", "vit-mini"])
    parser.add_argument("--predictions", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=5)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for ref in parsed.models:
        picture = first_picture(ref)
        model = load_model(ref)
        data = load_data(DEFAULT_DATA[model.modality], model, predictions=parsed.predictions)
        row = {"model": ref, "predictions": data.predictions, **passes(model, data, parsed.turns)}
        rows.append(row | {"first picture, seconds": picture, "cards, seconds": cards(model, data)})
    document = {"wanted, at most": WANTED, "models": rows, "machine": machine(), "when": time.strftime("%Y-%m-%d")}
    write("heads", document)


if __name__ == "__main__":
    main()
