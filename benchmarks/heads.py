"""What head scores and examples cost, in plain eager passes over the same data.

    python -m benchmarks.heads  # leaves benchmarks/results/heads.json

Everything is timed in one process, in turns, by processor time; a ratio is the median over the turns.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from ablation_core import head_scores, load_data, load_model
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.heads.examples import LayerValues
from benchmarks.measure import FOLDER


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(ref: str, predictions: int, turns: int) -> dict:
    model = load_model(ref)
    data = load_data(DEFAULT_DATA[model.modality], model, predictions=predictions)
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
        rows.append(
            (
                seconds(lambda: head_scores(model, data)) / one,
                seconds(lambda: LayerValues.collect(model, data, model.num_layers - 1)) / one,
            )
        )
    scores, examples = (statistics.median(column) for column in zip(*rows, strict=True))
    return {"model": ref, "predictions": data.predictions, "scores": round(scores, 2), "examples": round(examples, 2)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["opt-mini", "roberta-mini", "vit-mini"])
    parser.add_argument("--predictions", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3)
    parsed = parser.parse_args()
    rows = [measure(ref, parsed.predictions, parsed.turns) for ref in parsed.models]
    text = json.dumps({"passes": rows}, indent=2)
    (FOLDER / "heads.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
