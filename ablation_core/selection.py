"""Selections: sets of neurons, their text form, and their masks.

    >>> shape = ModelShape(heads=(6, 6, 6, 6), head_dim=32)
    >>> str(Selection.parse("3.2:4-6,5 3.2:7 0.1", shape))
    '0.1 3.2:4-7'

A head is written `layer.head`, neurons of it `layer.head:neurons`, a layer `3.*`, everything `*.*`; all counted from 0.
Understood too: commas and semicolons between heads, and L3H2 for 3.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablation_core.errors import SelectionError

if TYPE_CHECKING:  # the command line reads selections' shapes before it needs numpy
    import numpy as np

Head = tuple[int, int]

_TERM = re.compile(r"(?P<layer>\*|\d{1,9})\.(?P<head>\*|\d{1,9})(?::(?P<neurons>[\d,\-]+))?", re.ASCII)
_BETWEEN = re.compile(r"[,;](?=(?:\d+|\*)\.|L\d)", re.ASCII | re.IGNORECASE)  # other commas separate neurons
_LAYER_HEAD = re.compile(r"L(\d{1,9})\.?H(\d{1,9}|\*)", re.ASCII | re.IGNORECASE)
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")  # of a term, whose digits are plain


@dataclass(frozen=True)
class ModelShape:
    """How many neurons there are: `heads[layer]` heads of `head_dim` neurons each.

    Attributes:
        heads: per layer; 0 where a layer has no attention heads.
        sizes: per layer, where head sizes differ between layers; `head_dim` is then the greatest.
    """

    heads: tuple[int, ...]
    head_dim: int
    sizes: tuple[int, ...] = ()

    def size(self, layer: int) -> int:
        """Neurons per head of a layer."""
        return self.sizes[layer] if self.sizes else self.head_dim

    def width(self, layer: int) -> int:
        """Neurons of a layer: the width of its z."""
        return self.heads[layer] * self.size(layer)

    def flat(self, array: np.ndarray, layer: int) -> np.ndarray:
        """A layer's entries of an array (layers, heads, head_dim), in the order of z: (heads * size,)."""
        return array[layer, : self.heads[layer], : self.size(layer)].reshape(-1)

    @property
    def layers(self) -> int:
        return len(self.heads)

    @property
    def neurons(self) -> int:
        return sum(self.width(layer) for layer in range(self.layers))

    def __str__(self) -> str:
        sizes = {self.size(layer) for layer, heads in enumerate(self.heads) if heads}
        return f"{self.layers} layers of {_span(set(self.heads))} heads of {_span(sizes)} neurons"


@dataclass(frozen=True)
class Selection:
    """A set of neurons of a model of this shape.

    `chosen` holds `((layer, head), neurons)` in ascending order, each with at least one neuron; two selections of the
    same neurons are equal.
    """

    shape: ModelShape
    chosen: tuple[tuple[Head, tuple[int, ...]], ...] = ()

    @classmethod
    def parse(cls, text: str, shape: ModelShape) -> Selection:
        """Read a selection's text form; an empty text selects nothing.

        Raises:
            SelectionError: a term is malformed or lies outside the model.
        """
        neurons: dict[Head, set[int]] = {}
        words = text.split()
        for place, word in enumerate(words, 1):
            for term in _BETWEEN.split(word.rstrip(",;") if place < len(words) or ":" not in word else word):
                for head, picked in _parse_term(term, shape, word):
                    neurons.setdefault(head, set()).update(picked)
        return cls._of(shape, neurons)

    @classmethod
    def parse_one(cls, text: str, shape: ModelShape) -> Selection:
        """As `parse`, where one head is wanted, or neurons of one.

        Raises:
            SelectionError: it cannot be read, or is not one head.
        """
        found = cls.parse(text, shape)
        if len(found.heads) != 1:
            raise SelectionError(
                f"{text} is {len(found.heads)} heads; type one head (3.2) or one of its neurons (3.2:5)."
            )
        return found

    @classmethod
    def read(cls, select: str | Selection | Iterable[Head], shape: ModelShape) -> Selection:
        """A selection however a person writes it: `"3.2 5.0:1-4"`, heads as `[(3, 2), (5, 0)]`, one as `(3, 2)`,
        texts in a list, or a `Selection`.

        Raises:
            SelectionError: it cannot be read, lies outside the model, or was made for a model of another shape.
        """
        if isinstance(select, Selection):
            if select.shape != shape:
                raise SelectionError(
                    f"The selection was made for a model with {select.shape}, and this one has {shape}; parse it again."
                )
            return select
        if isinstance(select, str):
            return cls.parse(select, shape)
        try:
            parts = tuple(select)
            # one head, or one neuron; a list of numbers may mean several of anything
            alone = isinstance(select, tuple) and 2 <= len(parts) <= 3 and all(type(part) is int for part in parts)
            terms = [part if isinstance(part, str) else _term(*part) for part in ([parts] if alone else parts)]
        except (TypeError, ValueError) as error:
            raise SelectionError(
                f"Cannot read the selection {str(select)[:80]}: write heads and neurons as text, such as "
                f"'3.2 5.0:1-4', or heads as pairs, such as [(3, 2), (5, 0)]."
            ) from error
        return cls.parse(" ".join(terms), shape)

    @classmethod
    def read_heads(cls, select: str | Selection | Iterable[Head], shape: ModelShape) -> tuple[Head, ...]:
        """As `read`, where whole heads are wanted, one at a time.

        Raises:
            SelectionError: it cannot be read, names no head, or only some neurons of one.
        """
        found = cls.read(select, shape)
        if not found.chosen:
            raise SelectionError("No head was named; write heads as 3.2, a layer as 3.*, all as *.*.")
        for (layer, head), neurons in found.chosen:
            if len(neurons) < shape.size(layer):
                raise SelectionError(
                    f"Heads are ablated whole here, and of head {layer}.{head} only {len(neurons)} of {shape.size(layer)} neurons "
                    f"are named. Write {layer}.{head}, or ablate these neurons by themselves (ablate)."
                )
        return found.heads

    @classmethod
    def of_heads(cls, heads: Iterable[Head], shape: ModelShape) -> Selection:
        return cls.parse(" ".join(f"{layer}.{head}" for layer, head in heads), shape)

    @classmethod
    def of_masks(cls, masks: Sequence[np.ndarray], shape: ModelShape) -> Selection:
        """From one mask per layer, as `mask` gives them; bool (heads * head_dim,)."""
        import numpy as np

        neurons: dict[Head, set[int]] = {}
        for layer, mask in enumerate(masks):
            for place in np.flatnonzero(mask):
                head, neuron = divmod(int(place), shape.size(layer))
                neurons.setdefault((layer, head), set()).add(neuron)
        return cls._of(shape, neurons)

    @classmethod
    def _of(cls, shape: ModelShape, neurons: dict[Head, set[int]]) -> Selection:
        return cls(shape, tuple((head, tuple(sorted(neurons[head]))) for head in sorted(neurons) if neurons[head]))

    def __str__(self) -> str:
        """The text form, whole layers and runs joined; `parse` reads it back to an equal selection."""
        if len(self) == self.shape.neurons:
            return "*.*"
        terms = []
        whole = {head for head, neurons in self.chosen if len(neurons) == self.shape.size(head[0])}
        whole_layers = {
            layer
            for layer, count in enumerate(self.shape.heads)
            if all((layer, head) in whole for head in range(count))
        }
        for (layer, head), neurons in self.chosen:
            if layer in whole_layers:
                if head == 0:
                    terms.append(f"{layer}.*")
            elif (layer, head) in whole:
                terms.append(f"{layer}.{head}")
            else:
                terms.append(f"{layer}.{head}:{_ranges(neurons)}")
        return " ".join(terms)

    def __len__(self) -> int:
        """The number of neurons."""
        return sum(len(neurons) for _, neurons in self.chosen)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads with at least one selected neuron."""
        return tuple(head for head, _ in self.chosen)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({layer for (layer, _), _ in self.chosen}))

    def mask(self, layer: int) -> np.ndarray:
        """Which of the layer's z dimensions are selected; bool (heads * head_dim,)."""
        import numpy as np

        mask = np.zeros((self.shape.heads[layer], self.shape.size(layer)), dtype=bool)
        for (at, head), neurons in self.chosen:
            if at == layer:
                mask[head, list(neurons)] = True
        return mask.ravel()

    def toggled(self, other: Selection) -> Selection:
        """Without `other` if all of it is selected, else with all of it added."""
        mine = {head: set(neurons) for head, neurons in self.chosen}
        remove = all(set(neurons) <= mine.get(head, set()) for head, neurons in other.chosen)
        for head, neurons in other.chosen:
            mine[head] = mine[head] - set(neurons) if remove else mine.get(head, set()) | set(neurons)
        return self._of(self.shape, mine)


def _term(layer: int, head: int, neuron: int | None = None) -> str:
    """A head, or a neuron of it, given by its numbers."""
    numbers = [int(part) for part in (layer, head, 0 if neuron is None else neuron)]
    if numbers != [layer, head, 0 if neuron is None else neuron] or isinstance(layer, str | bool):
        raise ValueError("whole numbers are needed")
    return f"{numbers[0]}.{numbers[1]}" + ("" if neuron is None else f":{numbers[2]}")


def _parse_term(term: str, shape: ModelShape, word: str) -> Iterable[tuple[Head, range | set[int]]]:
    """The heads and neurons of a term; `word` is what was typed, for what cannot be read."""
    match = _TERM.fullmatch(_LAYER_HEAD.sub(r"\1.\2", term))
    if match is None:
        raise SelectionError(
            f"Cannot read {word!r} in the selection. Write a head as 3.2 or L3H2, neurons of it as 3.2:0-7,12, a layer as "
            f"3.*, everything as *.*, separated by spaces."
        )
    layers = _indices(match["layer"], shape.layers, "layer", word)
    if len(layers) == 1 and not shape.heads[layers[0]] and match["head"] != "*":
        having = ", ".join(str(layer) for layer, heads in enumerate(shape.heads) if heads)
        raise SelectionError(f"Layer {layers[0]} has no attention heads to select by {word!r}; layers {having} have.")
    for layer in layers:
        size = shape.size(layer)
        picked = range(size) if match["neurons"] is None else _parse_neurons(match["neurons"], size, word)
        for head in _indices(match["head"], shape.heads[layer], "head", word):
            yield (layer, head), picked


def _parse_neurons(text: str, size: int, term: str) -> set[int]:
    neurons: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise SelectionError(f"Cannot read the neurons of {term!r}: write them as 5, 0-7 or 0-7,12.")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise SelectionError(f"The range {part} in {term!r} runs backwards; write {last}-{first}.")
        _check(last, size, "neuron", term)
        neurons.update(range(first, last + 1))
    return neurons


def _indices(text: str, count: int, kind: str, term: str) -> range:
    if text == "*":
        return range(count)
    index = int(text)
    _check(index, count, kind, term)
    return range(index, index + 1)


def _check(index: int, count: int, kind: str, term: str) -> None:
    if index >= count:
        raise SelectionError(f"There is no {kind} {index} for {term!r}: this model's {kind}s go from 0 to {count - 1}.")


def _span(numbers: set[int]) -> str:
    fewest, most = min(numbers, default=0), max(numbers, default=0)
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def _ranges(neurons: tuple[int, ...]) -> str:
    """Ascending numbers with runs joined: (0, 1, 2, 5) → '0-2,5'."""
    runs: list[list[int]] = []
    for neuron in neurons:
        if runs and neuron == runs[-1][-1] + 1:
            runs[-1].append(neuron)
        else:
            runs.append([neuron])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
