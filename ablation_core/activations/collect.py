"""From a model and data to statistics: collects every layer's z, batch by batch."""

import numpy as np
import torch
from torch import Tensor

from ablation_core.activations.accumulator import Accumulator
from ablation_core.activations.made_from import BINNINGS, FINE_BINS, FORMAT_VERSION, Binning
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import measures
from ablation_core.data.dataset import Batch, Data
from ablation_core.data.made_for import check_made_for
from ablation_core.engine import forward
from ablation_core.errors import StatisticsError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.own_code import hooks_of, without_hooks
from ablation_core.progress import Progress, reporting


class StatisticsRun:
    """Statistics under way: one step per batch, a result after any of them.

    Args:
        bins: fine bins of each neuron's histogram.
        positions_left_out: how many positions at the start of each sequence are not counted; by default the first,
            where that holds BOS or CLS. Padding never is.
        limits: per layer the histogram's range; by default set from the first rows.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Data,
        *,
        bins: int = FINE_BINS,
        positions_left_out: int | None = None,
        limits: list[tuple[Tensor, Tensor]] | None = None,
        binning: str = "robust",
    ) -> None:
        check_made_for(model, data.made_for, data.ref)
        self.model, self.data = model, data
        if positions_left_out is None:
            positions_left_out = model.excluded_positions
        self.positions_left_out, self.binning = positions_left_out, binning
        self.layers = [
            Accumulator(model.shape.width(layer), bins, limits[layer] if limits else None)
            for layer in range(model.num_layers)
        ]
        # In random order, so that the first rows, which fix the histograms' ranges, come from all over the data.
        self._order = np.random.default_rng(data.seed).permutation(data.sequences)
        self.steps_done, self.tokens = 0, 0
        self._hooks: list[str] = []

    @property
    def steps(self) -> int:
        return len(self.data)

    def step(self) -> None:
        """Count the next batch."""
        first = self.steps_done * self.data.batch_size
        batch = self.data.rows(self._order[first : first + self.data.batch_size].tolist())
        captured = forward.z_values(self.model, batch, range(self.model.num_layers))
        if not self.steps_done:
            self._hooks = _hooks_that_change(self.model, batch, captured)
        for layer, accumulator in enumerate(self.layers):
            z = captured.pop(layer)  # layers done with make room
            counted = counted_positions(batch, z, self.positions_left_out).flatten().nonzero()[:, 0]
            accumulator.update(z.flatten(0, 1).index_select(0, counted))
        self.tokens = int(max((layer.count + layer.not_finite).max() for layer in self.layers if len(layer.count)))
        self.steps_done += 1

    def result(self) -> Statistics:
        """The statistics over the batches done so far.

        Raises:
            StatisticsError: nothing was counted.
        """
        if not self.tokens:
            raise StatisticsError(
                f"No position was left to count after leaving out {self.positions_left_out} of each sequence."
            )
        provenance = {
            "format": FORMAT_VERSION,
            "model": self.model.ref,
            "model_fingerprint": self.model.fingerprint,
            "data": self.data.ref,
            "data_fingerprint": self.data.fingerprint,
            "source": self.data.source,
            "split": self.data.split,
            "sequences": min(self.steps_done * self.data.batch_size, self.data.sequences),
            "tokens": self.tokens,
            "seq_len": self.data.seq_len,
            "positions_left_out": self.positions_left_out,
            "dtype": self.model.dtype,
            "seed": self.data.seed,
            "bins": self.layers[0].bins,
            "binning": self.binning,
        }
        if self.data.documents:
            provenance["documents"] = True
        if self._hooks:
            provenance["hooks"] = self._hooks
        return gather_statistics(self.layers, self.model.shape.heads, provenance)


@measures
def compute_statistics(
    model: LoadedModel,
    data: Data,
    *,
    bins: int = FINE_BINS,
    positions_left_out: int | None = None,
    binning: Binning = "robust",
    progress: Progress | bool | None = None,
) -> Statistics:
    """The activation statistics of every neuron, in one pass over the data.

    >>> from ablation_core import compute_statistics, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> statistics = compute_statistics(model, load_data("python-docs", model, predictions=200, split="statistics"))
    >>> statistics.mean.shape, statistics.peak(bins=50).shape  # layers, heads, neurons per head
    ((6, 6, 32), (6, 6, 32))

    Args:
        bins: fine bins of each neuron's histogram, 1 to 10,000; any coarser binning is read from them.
        positions_left_out: at the start of each sequence; by default the first, where that holds BOS or CLS.
        binning: `robust` (see `statistics`), or `min-max`, the paper's: the histogram spans each neuron's own least to
            greatest value, which takes a second pass.
        progress: called with (batches done, batches) after each; True for a bar.

    Raises:
        StatisticsError: nothing was counted, or there is no such binning.
    """
    if binning not in BINNINGS:
        raise StatisticsError(f"There is no binning {binning!r}; choose from {', '.join(BINNINGS)}.")
    if not 1 <= bins <= 10_000 or (positions_left_out or 0) < 0:
        raise StatisticsError("Statistics need between 1 and 10,000 bins, and leave out 0 or more positions.")
    limits = None
    passes = 1 if binning == "robust" else 2
    with reporting(progress, "statistics") as report:
        for number in range(passes):
            run = StatisticsRun(
                model, data, bins=bins, positions_left_out=positions_left_out, limits=limits, binning=binning
            )
            while run.steps_done < run.steps:
                run.step()
                if report:
                    report(run.steps_done + number * run.steps, passes * run.steps)
            limits = [(layer.minimum.double(), _above(layer)) for layer in run.layers]
    return run.result()


def _hooks_that_change(model: LoadedModel, batch: Batch, captured: dict[int, Tensor]) -> list[str]:
    """A person's own hooks on the module where its heads compute other values without them; most hooks only look on."""
    if not (hooks := hooks_of(model.module)):
        return []
    with model.lock, without_hooks(model.module):
        plain = forward.z_values(model, batch, list(captured))
    same = (torch.allclose(captured[layer], plain[layer], rtol=0, atol=0, equal_nan=True) for layer in captured)
    return [] if all(same) else hooks


def _above(layer: Accumulator) -> Tensor:
    """The greatest value; a little more where it equals the least, so that the range has a width."""
    high, low = layer.maximum.double(), layer.minimum.double()
    return high.where(high > low, low + low.abs().clamp(min=1e-6) * 1e-3)


def counted_positions(batch: Batch, z: Tensor, excluded_positions: int) -> Tensor:
    """Which positions are counted: not padding, and not the first `excluded_positions` of a sequence; bool (batch, position)."""
    mask = batch.inputs.get("attention_mask")
    if mask is None:
        mask = torch.ones(z.shape[:2], dtype=torch.long)
    mask = mask.to(z.device)
    return mask.bool() & (mask.cumsum(1) > excluded_positions)


def gather_statistics(layers: list[Accumulator], heads: tuple[int, ...], provenance: dict) -> Statistics:
    """Statistics from one accumulator per layer; the accumulators can still take more rows."""
    layers = [layer.settled() for layer in layers]

    def gather(values: list[Tensor], missing: float) -> np.ndarray:
        head_dim = max(len(value) // count for value, count in zip(values, heads, strict=True) if count)
        shape = (len(heads), max(heads), head_dim, *values[0].shape[1:])
        array = np.full(shape, missing, dtype=values[0].numpy().dtype)
        for layer, value in enumerate(values):
            if heads[layer]:
                own = value.numpy().reshape(heads[layer], -1, *shape[3:])
                array[layer, : heads[layer], : own.shape[1]] = own
        return array

    def gather_float(values: list[Tensor], missing: float) -> np.ndarray:
        return gather([value.float() for value in values], missing)

    nothing = [layer.mean.new_zeros(len(layer.mean)) for layer in layers]
    return Statistics(
        count=gather_float([layer.count for layer in layers], 0),
        mean=gather_float([layer.mean.where(layer.count > 0, np.nan) for layer in layers], np.nan),
        std=gather_float([(layer.squares / layer.count).sqrt() for layer in layers], np.nan),
        minimum=gather_float([layer.minimum.where(layer.count > 0, np.nan) for layer in layers], np.nan),
        maximum=gather_float([layer.maximum.where(layer.count > 0, np.nan) for layer in layers], np.nan),
        not_finite=gather_float([layer.not_finite for layer in layers], 0),
        low=gather([layer.limits[0] if layer.limits else nothing[i] for i, layer in enumerate(layers)], np.nan),
        high=gather([layer.limits[1] if layer.limits else nothing[i] for i, layer in enumerate(layers)], np.nan),
        counts=gather([layer.counts for layer in layers], 0),
        provenance=provenance,
    )
