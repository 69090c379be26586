"""What kind of head it is: seven scores of every head, from the attention weights of one pass over the data.

scores = head_scores(model, data)
scores.induction               # float32 (layers, heads), or None where the score makes no sense
scores.spread("induction")     # standard deviation over the sequences, the same shape
scores.interval("induction", (3, 2))  # its mean over the sequences with a 95% interval
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ablation_core.data.arguments import measures
from ablation_core.data.dataset import Batch, Data, sequences_once
from ablation_core.data.user_input import text_inputs
from ablation_core.engine.forward import first_row, on_device, run_blocks
from ablation_core.errors import DataError
from ablation_core.heads.kinds import SCORES, Score, Seen
from ablation_core.heads.observe import observe_attention
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import known_tokens, ordinary_tokens, special_tokens
from ablation_core.selection import Head
from ablation_core.stats.intervals import FEWEST_SEQUENCES, Interval, mean_intervals
from ablation_core.storage import as_number

if TYPE_CHECKING:
    import pandas as pd

REPEATED = 32  # random tokens, written twice
SHARE_REPEATED = 8  # one sequence of repeated random tokens for so many of the data


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Scores of every head; float32 (layers, heads) each, NaN where a layer has fewer heads than the widest.

    Attributes:
        per_sequence: score → float32 (sequences, layers, heads), without those that make no sense for the model.
        seed: of the random tokens and of the intervals.
    """

    per_sequence: dict[str, np.ndarray]
    seed: int = 0

    def __getitem__(self, name: str) -> np.ndarray | None:
        """A score's mean over the sequences, float32 (layers, heads); None where it makes no sense for the model."""
        if name not in SCORES:
            raise KeyError(name)
        if name not in self.per_sequence:
            return None
        return self.per_sequence[name].mean(0, dtype=np.float64).astype(np.float32)

    def __getattr__(self, name: str) -> Any:
        if name in SCORES:
            return self[name]
        raise AttributeError(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *SCORES]

    def spread(self, name: str) -> np.ndarray | None:
        """The standard deviation over the sequences, float32 (layers, heads); NaN for a single sequence."""
        if name not in self.per_sequence:
            return None
        values = self.per_sequence[name]
        if len(values) < 2:
            return np.full(values.shape[1:], np.nan, np.float32)
        return values.std(0, ddof=1, dtype=np.float64).astype(np.float32)

    def interval(self, name: str, head: Head) -> Interval | None:
        """One head's score with its 95% interval over the sequences."""
        if name not in self.per_sequence:
            return None
        values = self.per_sequence[name][:, head[0], head[1]].astype(float)
        return mean_intervals(values[None], np.arange(len(values)), self.seed)[0]

    def percentile(self, name: str, head: Head) -> float | None:
        """The share of the model's heads whose score is at most this one's, 0 to 100."""
        values = self[name]
        if values is None:
            return None
        known = values[np.isfinite(values)]
        return float(100 * (known <= values[head]).mean()) if np.isfinite(values[head]) else None

    def to_dict(self) -> dict[str, Any]:
        """Score → the lists of `mean` and `spread` by layer and head, null where there is none."""

        def lists(values: np.ndarray | None) -> list[list[float | None]] | None:
            return None if values is None else [[as_number(float(one)) for one in row] for row in values]

        return {name: {"mean": lists(self[name]), "spread": lists(self.spread(name))} for name in SCORES}

    def to_frame(self) -> pd.DataFrame:
        """One row per head: `layer`, `head`, every score that makes sense, and its spread as `…_spread`."""
        import pandas as pd

        shape = next(iter(self.per_sequence.values())).shape[1:]
        layer, head = (places.ravel() for places in np.indices(shape))
        columns: dict[str, np.ndarray] = {"layer": layer, "head": head}
        for name in self.per_sequence:
            for key, values in ((name, self[name]), (f"{name}_spread", self.spread(name))):
                assert values is not None
                columns[key] = values.ravel()
        frame = pd.DataFrame(columns)
        return frame[frame[next(iter(self.per_sequence))].notna()].reset_index(drop=True)


@measures
def head_scores(
    model: LoadedModel, data: Data, seed: int | None = None, progress: Callable[[int, int], None] | None = None
) -> HeadScores:
    """Score every head over the data; induction on random tokens written twice, an eighth as many sequences (at least 5).

    >>> from ablation_core import head_scores, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> scores = head_scores(model, load_data("python-docs", model, predictions=500))
    >>> scores.previous_token.shape, scores.previous_token.dtype.name
    ((6, 6), 'float32')

    `heads/kinds.py` defines the scores. Masked models have no induction, vision models neither previous nor duplicate
    tokens; the first position is only scored where it is BOS or CLS or the model reads text.

    Args:
        seed: of the random tokens; by default the data's.
        progress: called with (batches done, batches) after each.

    Raises:
        ModelError: the model's own attention cannot be seen (`attention_pattern` says the same).
    """
    return HeadScoresRun(model, data, seed).finish(progress).result()


class HeadScoresRun:
    """Scores under way: one step per batch, a result after any of them (once the data has begun)."""

    def __init__(self, model: LoadedModel, data: Data, seed: int | None = None) -> None:
        self.model, self.data, self.seed = model, data, data.seed if seed is None else seed
        self._chosen = scores_for(model)
        self._found: dict[str, list[np.ndarray]] = {score.name: [] for score in self._chosen}
        self._repeated = repeated_tokens(model, data, self.seed) if model.modality == "causal" else None
        self.steps_done = 0

    @property
    def steps(self) -> int:
        return len(self.data) + (0 if self._repeated is None else -(-len(self._repeated) // self.data.batch_size))

    def _batches(self, number: int) -> tuple[Batch, bool]:
        """The batch of this step, and whether it holds random tokens written twice; these come first."""
        extra = self.steps - len(self.data)
        if self._repeated is None or number >= extra:
            return sequences_once(self.data.rows(self.data.numbers(number - extra))), False
        ids = self._repeated[number * self.data.batch_size :][: self.data.batch_size]
        return Batch(text_inputs(ids), torch.full_like(ids, -100)), True

    def step(self) -> None:
        """Score the next batch."""
        batch, repeated = self._batches(self.steps_done)
        if not self.steps_done:  # the model's own attention must be what is seen
            check_attention(self.model, batch)
        scores = [score for score in self._chosen if score.repeated == repeated]
        for name, values in _score_batch(self.model, on_device(batch, self.model), scores).items():
            self._found[name].append(values)
        self.steps_done += 1

    def finish(self, progress: Callable[[int, int], None] | None = None) -> HeadScoresRun:
        while self.steps_done < self.steps:
            self.step()
            if progress:
                progress(self.steps_done, self.steps)
        return self

    def result(self) -> HeadScores:
        """The scores over the batches done so far.

        Raises:
            DataError: no batch of the data is done.
        """
        done = {name: np.concatenate(parts) for name, parts in self._found.items() if parts}
        if not done:
            raise DataError("Nothing has been scored yet; run at least one step.")
        return HeadScores(done, self.seed)


def scores_for(model: LoadedModel) -> list[Score]:
    """The rows of `SCORES` that make sense for a model."""
    return [score for score in SCORES.values() if _makes_sense(score, model)]


def _makes_sense(score: Score, model: LoadedModel) -> bool:
    if model.modality == "vision" and score.name == "first_token":
        return bool(model.excluded_positions)  # else the first position is a patch like any other
    return model.modality in score.modalities


@torch.inference_mode()
def _score_batch(model: LoadedModel, batch: Batch, scores: list[Score]) -> dict[str, np.ndarray]:
    """Score → float32 (sequences, layers, heads) of one batch."""
    rows = len(batch.targets)
    found = {
        score.name: np.full((rows, model.num_layers, max(model.shape.heads)), np.nan, np.float32) for score in scores
    }
    seen: list[Seen] = []

    def use(layer: int, weights: Tensor) -> None:
        if not seen or seen[0].counted.device != weights.device:
            seen[:] = [_seen(model, batch, weights)]
        if not seen[0].counted.all():
            weights = weights.nan_to_num(0)  # of padding, which counts for nothing
        for score in scores:
            found[score.name][:, layer, : model.shape.heads[layer]] = score.of(weights, seen[0]).cpu().numpy()

    with model.lock, observe_attention(model, range(model.num_layers), rows, use, checked=True):
        run_blocks(model, batch)
    return found


@torch.inference_mode()
def check_attention(model: LoadedModel, batch: Batch) -> None:
    """See every layer's weights once, on a batch's first row, and compare weights times values with its z.

    Raises:
        ModelError: they are not what the model itself uses.
    """
    with model.lock, observe_attention(model, range(model.num_layers), 1, lambda _layer, _weights: None):
        run_blocks(model, on_device(first_row(batch), model))


def _seen(model: LoadedModel, batch: Batch, weights: Tensor) -> Seen:
    rows, length = weights.shape[0], weights.shape[-1]
    mask = batch.inputs.get("attention_mask")
    counted = torch.ones(rows, length, dtype=torch.bool) if mask is None else mask.bool()
    counted = counted.to(weights.device)
    if model.modality == "vision":
        return Seen(counted, grid=patch_grid(model, length))
    return Seen(counted, batch.inputs["input_ids"].to(weights.device))


def patch_grid(model: LoadedModel, positions: int) -> tuple[int, int]:
    """Rows and columns of an image's patches, which are the last of so many positions.

    Raises:
        DataError: neither the model nor the number of positions tells.
    """
    embed: Any = getattr(model.module, "patch_embed", None)
    grid = getattr(embed, "grid_size", None)
    config = getattr(model.module, "config", None)
    config = getattr(config, "vision_config", config)
    if grid is None and config is not None:
        sides = [
            size if isinstance(size, list | tuple) else (size, size) for size in (config.image_size, config.patch_size)
        ]
        grid = sides[0][0] // sides[1][0], sides[0][1] // sides[1][1]
    if grid is None or not 0 < grid[0] * grid[1] <= positions:
        raise DataError(f"{model.ref} has {positions} positions, and does not say how its patches lie in the image.")
    return int(grid[0]), int(grid[1])


def repeated_tokens(model: LoadedModel, data: Data, seed: int) -> Tensor:
    """`REPEATED` random tokens written twice, behind BOS: ids (sequences, positions), an eighth as many sequences as the data.

    The tokens of a sequence differ from each other, as far as the vocabulary has so many.
    """
    before, _ = special_tokens(model) if model.tokenizer is not None else ([], [])
    ids = np.arange(known_tokens(model)) if model.tokenizer is None else ordinary_tokens(model)
    count = max(FEWEST_SEQUENCES, -(-data.sequences // SHARE_REPEATED))
    size = max(1, min(REPEATED, (data.length - len(before)) // 2))
    generator = np.random.default_rng(seed)
    drawn = np.stack([generator.choice(ids, size, replace=size > len(ids)) for _ in range(count)])
    start = np.tile(np.array(before, dtype=np.int64), (count, 1))
    return torch.from_numpy(np.concatenate([start, drawn, drawn], axis=1).astype(np.int64))
