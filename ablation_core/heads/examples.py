"""When a head is active: tokens or patches at which a neuron takes certain values, or a head writes much, in context.

    for example in examples(model, data, "3.2:5", where="top"):
        example.value, example.before, example.token, example.after

A head's value is the norm of what it writes, |z_h W_O,h|. Values are those of one pass over the layer. The highest and
the lowest are exact; others are drawn at random from the positions with such values, by the data's seed. So much of the
pass is kept as fits into `KEPT_BYTES`: all of it for one neuron, a random sample of positions for a layer on long data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation_core.activations.collect import counted_positions
from ablation_core.data.arguments import measures, whole_number
from ablation_core.data.dataset import Data, sequences_once
from ablation_core.engine.forward import z_values
from ablation_core.errors import DataError
from ablation_core.experiments.predictions.per_prediction import token_texts
from ablation_core.heads.scores import patch_grid
from ablation_core.heads.target import Target
from ablation_core.heads.weights import head_output_gram
from ablation_core.models.loaded import LoadedModel
from ablation_core.storage import as_number

COUNT = 8
CONTEXT = 12  # tokens before an example, and half as many behind it
KEPT_BYTES = 1 << 26
EXTREMES = 64
Where = str | int | tuple[float, float]
Rows = tuple[np.ndarray, np.ndarray]  # places (rows, …, 2) and values (rows, …)


@dataclass(frozen=True)
class Example:
    """One position with its value.

    Attributes:
        sequence, position: the window or image of the data, and the place in it, both counted from 0.
        value: the neuron's activation, or the norm of what the head writes.
        before, token, after: of text, what is written there and around it; else empty.
        patch: of an image, the patch's row and column; None for text, and where the position is no patch.
    """

    sequence: int
    position: int
    value: float
    before: str = ""
    token: str = ""
    after: str = ""
    patch: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"value": as_number(self.value), "patch": None if self.patch is None else [*self.patch]}


@measures
def examples(
    model: LoadedModel, data: Data, select: str, where: Where = "top", count: int = COUNT, seed: int | None = None
) -> list[Example]:
    """Positions of the data where a neuron (`3.2:5`) or a head (`3.2`) has such values.

    >>> from ablation_core import examples, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> found = examples(model, load_data("python-docs", model, predictions=500), "3.2:5", "top", count=3)
    >>> len(found), found[0].value >= found[1].value >= found[2].value
    (3, True)

    Args:
        where: `top` or `bottom` (in order), a decile from 1 to 10 or as `decile 3`, or a range (low, high), both
            included.
        seed: of what is drawn; by default the data's.

    Returns:
        Up to `count`; fewer where there are fewer. Padding, and the first position where it is BOS or CLS, is left out.

    Raises:
        SelectionError, DataError: it is not one neuron or head, or there is no such place.
    """
    target = Target.parse(select, model.shape)
    bucket(where)
    whole_number(count, "count", 1)
    values = LayerValues.collect(model, data, target.layer, [target])
    return values.examples(target, where, count, data.seed if seed is None else seed)


@dataclass(frozen=True, eq=False)
class LayerValues:
    """The values of some neurons and heads of one layer at positions of the data.

    Attributes:
        targets: what the columns are.
        places: int64 (positions, 2), sequence and position, in no particular order.
        values: float32 (positions, columns).
        extremes: where that is not all positions: each column's `EXTREMES` lowest, and its highest, in order.
        positions: how many there were.
    """

    model: LoadedModel
    data: Data
    targets: tuple[Target, ...]
    places: np.ndarray
    values: np.ndarray
    extremes: dict[str, Rows] | None
    positions: int

    @classmethod
    def collect(
        cls,
        model: LoadedModel,
        data: Data,
        layer: int,
        targets: Sequence[Target] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerValues:
        """One pass over the data; by default of every neuron and head of the layer.

        Args:
            progress: called with (batches done, batches) after each.
        """
        chosen = tuple(targets or _whole_layer(model, layer))
        sample = _Sample(max(1, KEPT_BYTES // (4 * len(chosen))), data.seed)
        read = _reader(model, layer, chosen)
        for number, batch in enumerate(map(sequences_once, data)):
            z = z_values(model, batch, [layer])[layer]
            counted = counted_positions(batch, z, model.excluded_positions)
            places = counted.nonzero().cpu().numpy() + np.array([data.numbers(number).start, 0])
            sample.add(places, read(z[counted].float()).cpu().numpy())
            if progress:
                progress(number + 1, len(data))
        return cls(model, data, chosen, *sample.kept(), sample.extremes, sample.positions)

    def examples(self, target: Target, where: Where = "top", count: int = COUNT, seed: int = 0) -> list[Example]:
        """As `examples`, from what was collected."""
        column, wanted = self.targets.index(target), bucket(where)
        if isinstance(wanted, str):
            places, found = self._extremes(column, wanted, count)
        else:
            places, found = self.places, self.values[:, column]
            low, high = wanted if isinstance(wanted, tuple) else np.nanquantile(found, [(wanted - 1) / 10, wanted / 10])
            inside = np.flatnonzero((found >= low) & (found <= high))
            drawn = np.random.default_rng(seed).permutation(inside)[:count]
            places, found = places[drawn], found[drawn]
        return [
            self._example(int(sequence), int(position), float(value))
            for (sequence, position), value in zip(places, found, strict=True)
        ]

    def _extremes(self, column: int, end: str, count: int) -> Rows:
        """A column's highest (`top`) or lowest values, in order."""
        if self.extremes is None:
            order = _order(self.values[:, column], end)[:count]
            return self.places[order], self.values[order, column]
        if count > EXTREMES:
            raise DataError(f"At most {EXTREMES} highest or lowest examples are kept of a layer, not {count}.")
        places, values = self.extremes[end]
        return places[:count, column], values[:count, column]

    def _example(self, sequence: int, position: int, value: float) -> Example:
        if self.model.modality == "vision":
            return Example(sequence, position, value, patch=self._patch(position))
        inputs = self.data.rows([sequence]).inputs
        ids = inputs["input_ids"][0][inputs["attention_mask"][0].bool()].tolist()  # padding, on the right, is not shown
        if self.model.tokenizer is None:
            return Example(sequence, position, value, token=str(ids[position]))
        first = max(0, position - CONTEXT)
        texts = token_texts(self.model, ids[first : position + CONTEXT // 2 + 1])
        here = position - first
        return Example(sequence, position, value, "".join(texts[:here]), texts[here], "".join(texts[here + 1 :]))

    def _patch(self, position: int) -> tuple[int, int] | None:
        """Row and column of an image's position: patches are the last positions, row by row."""
        rows, columns = patch_grid(self.model, self._length)
        number = position - (self._length - rows * columns)
        return None if number < 0 else divmod(number, columns)

    @property
    def _length(self) -> int:
        """Positions of an image."""
        return int(self.places[:, 1].max()) + 1


def bucket(where: Where) -> str | int | tuple[float, float]:
    """What is asked for, read: `top`, `bottom`, a decile from 1 to 10, or a range.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(where, str) and where.removeprefix("decile").strip().isdecimal():
        where = int(where.removeprefix("decile"))
    if isinstance(where, str) and where in ("top", "bottom"):
        return where
    if isinstance(where, Integral) and not isinstance(where, bool) and 1 <= where <= 10:
        return int(where)
    if isinstance(where, tuple | list) and len(where) == 2 and all(isinstance(end, Real) for end in where):
        low, high = map(float, where)
        if low <= high:
            return low, high
    raise DataError(f"Examples are from the top, the bottom, a decile (1 to 10) or a range (low, high), not {where!r}.")


def _whole_layer(model: LoadedModel, layer: int) -> Iterator[Target]:
    for head in range(model.shape.heads[layer]):
        yield Target(layer, head)
        yield from (Target(layer, head, neuron) for neuron in range(model.shape.size(layer)))


def _reader(model: LoadedModel, layer: int, targets: Sequence[Target]) -> Callable[[Tensor], Tensor]:
    """From z, float32 (positions, heads * head_dim), to the targets' values, (positions, targets)."""
    grams = {t.head: head_output_gram(model, layer, t.head) for t in targets if t.neuron is None}

    def read(z: Tensor) -> Tensor:
        columns = []
        for target in targets:
            own = z[:, target.columns(model.shape.size(target.layer))]
            if target.neuron is None:  # |z W|² = z (W Wᵀ) zᵀ
                own = ((own @ grams[target.head]) * own).sum(1, keepdim=True).clamp(min=0).sqrt()
            columns.append(own)
        return torch.cat(columns, 1)

    return read


def _order(values: np.ndarray, end: str) -> np.ndarray:
    """The order of values from the end named, along the first axis; without the places of NaN in one dimension."""
    sign = -1 if end == "top" else 1
    order = np.argsort(np.where(np.isnan(values), np.inf, sign * values), axis=0, kind="stable")
    return order[: np.isfinite(values).sum()] if values.ndim == 1 else order[:EXTREMES]


class _Sample:
    """Takes rows and keeps up to `limit` of them, each with the same chance; and every column's extremes.

    A reservoir by random keys: the rows with the largest keys stay (Efraimidis & Spirakis 2006, with equal weights).
    """

    def __init__(self, limit: int, seed: int) -> None:
        self._limit, self._generator = limit, np.random.default_rng(seed)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._rows, self._fresh, self.positions = 0, 0, 0
        self.extremes: dict[str, Rows] | None = None

    def add(self, places: np.ndarray, values: np.ndarray) -> None:
        """places (rows, 2), values float32 (rows, width)."""
        self._parts.append((self._generator.random(len(places)), places, values))
        self._rows, self.positions = self._rows + len(places), self.positions + len(places)
        if self._rows > 2 * self._limit:
            self._cut()

    def kept(self) -> Rows:
        """The sample. Where it is not all rows, `extremes` has the extremes of all."""
        if not self.positions:
            raise DataError("The data has no position to take an example from.")
        self._cut()
        return self._parts[0][1], self._parts[0][2]

    def _cut(self) -> None:
        """Join what came, and let go of what is too much; extremes are taken before anything goes."""
        if self._rows > self._limit or self.extremes is not None:
            came = [part[1:] for part in self._parts[self._fresh :]]
            for places, values in came:
                self._take_extremes(places, values)
        keys, places, values = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        order = np.argsort(-keys)[: self._limit] if len(keys) > self._limit else slice(None)
        self._parts, self._rows = [(keys[order], places[order], values[order])], len(keys[order])
        self._fresh = int(self.extremes is not None)  # the first part's extremes are taken

    def _take_extremes(self, places: np.ndarray, values: np.ndarray) -> None:
        taken = {}
        for end in ("bottom", "top"):
            best = _order(values, end)
            found, where = np.take_along_axis(values, best, 0), places[best]
            if self.extremes is not None:
                where = np.concatenate([self.extremes[end][0], where])
                found = np.concatenate([self.extremes[end][1], found])
                order = _order(found, end)
                where, found = np.take_along_axis(where, order[..., None], 0), np.take_along_axis(found, order, 0)
            taken[end] = where, found
        self.extremes = taken
