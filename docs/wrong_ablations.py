"""Common mistakes beside what this project does, on every head of opt-mini: `python -m docs.wrong_ablations`.

The figures of docs/guide/wrong-ablations.md. Written with plain hooks, so that each way can be read in a few lines.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ablation_core import find_statistics, load_data, load_model, load_statistics

model = load_model("opt-mini")
data = load_data("python-docs", model, predictions=2000)
statistics = load_statistics(find_statistics(model, "python-docs").path, model)


def loss(projection: torch.nn.Module | None = None, change: Callable | None = None, after: bool = False) -> float:
    """The mean loss, with `change` applied to what a projection reads or, `after` it, gives."""
    handles = []
    if projection is not None and after:
        handles = [projection.register_forward_hook(lambda _module, _inputs, output: change(output))]
    elif projection is not None:
        handles = [projection.register_forward_pre_hook(lambda _module, inputs: (change(inputs[0]),))]
    losses = []
    with torch.inference_mode():
        for batch in data:
            logits = model.module(**batch.inputs).logits
            each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets, reduction="none")
            losses.append(each[batch.targets != -100])  # in a prediction that is not scored the loss is 0
    for handle in handles:
        handle.remove()
    return float(torch.cat(losses).double().mean())


def replaced(columns: slice, value: Callable[[Tensor], Tensor | float]) -> Callable[[Tensor], Tensor]:
    def change(z: Tensor) -> Tensor:
        z = z.clone()
        z[..., columns] = value(z[..., columns])
        return z

    return change


def main() -> None:
    inputs = next(iter(data)).inputs
    mask = torch.zeros(model.num_layers, model.num_heads)
    with torch.inference_mode():
        ignored = torch.equal(model.module(**inputs).logits, model.module(**inputs, head_mask=mask).logits)
    print(
        f"head_mask is ignored: {ignored}\n\n| head | zero | output slice zeroed | mean | own mean |\n|---|---|---|---|---|"
    )
    baseline, rows = loss(), []
    for layer, projection in enumerate(model.projections):
        for head in range(model.num_heads):
            columns = slice(head * model.head_dim, (head + 1) * model.head_dim)
            zero = replaced(columns, lambda part: 0.0)
            mean = torch.from_numpy(statistics.mean[layer, head])
            own = replaced(columns, lambda part: part.mean(1, keepdim=True))
            rows.append(
                [
                    loss(projection, zero) - baseline,
                    loss(projection, zero, after=True) - baseline,
                    loss(projection, replaced(columns, lambda part, mean=mean: mean)) - baseline,
                    loss(projection, own) - baseline,
                ]
            )
            print(f"| {layer}.{head} |", " | ".join(f"{change:+.4f}" for change in rows[-1]), "|", flush=True)
    right, sliced, mean, own = np.array(rows).T
    print(
        f"\nRank correlation over {len(rows)} heads: output slices {spearmanr(right, sliced).statistic:.2f}, ", end=""
    )
    print(f"own means {spearmanr(mean, own).statistic:.2f}; median ratio of the own means {np.median(own / mean):.2f}")


if __name__ == "__main__":
    main()
