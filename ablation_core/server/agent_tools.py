"""What agents may call, with the limits of a shared server; `mcp.py` carries it.

Each tool answers with a JSON document: the figures with their 95% intervals, sentences that say what they mean, the noise
floor where there is one, and the command that prints the same again. What is not offered, or too much, is a sentence.
One call runs at a time, in the order of asking, and one model is in memory; nothing is written.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ablation_core import bundled
from ablation_core.data.references import usual_data
from ablation_core.errors import DataError, SelectionError
from ablation_core.server.access import MOST_PREDICTIONS, Access
from ablation_core.server.turns import FairLock

if TYPE_CHECKING:
    from ablation_core.activations.statistics import Statistics
    from ablation_core.data.dataset import Data
    from ablation_core.models.loaded import LoadedModel

MOST_NEURONS = 64  # described at once
MOST_ABLATED = 100_000  # predictions of a sweep, over all heads, random sets and methods
RANDOM_SETS = 8
LISTED = 12  # heads of an estimate
_PREDICTIONS = 1000


class Tools:
    """What an agent may call; the docstrings are what it reads about each."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._turns = FairLock()
        self._model: LoadedModel | None = None

    def models(self) -> dict[str, Any]:
        """List the models, data sets and ablation methods that this server offers, and its limits."""
        from ablation_core.methods.registry import METHODS

        described = {name: bundled.describe(name) for name in bundled.NAMES}
        return {
            "models": [{"ref": ref, "description": described.get(ref, "")} for ref in self._access.models],
            "data": list(self._access.data),
            "methods": list(METHODS),
            "limits": {
                "predictions": MOST_PREDICTIONS,
                "neurons described at once": MOST_NEURONS,
                "predictions of a sweep, over heads, random sets and methods": MOST_ABLATED,
            },
        }

    def statistics(self, model: str, select: str, data: str | None = None, bins: int = 100) -> dict[str, Any]:
        """Describe how neurons' activations are distributed: mean, median, peak, spread, and a sentence about each.

        `select` names neurons: "3.2:5" is neuron 5 of head 2 of layer 3, "3.2" a whole head, "3.2:0-7" a range.
        """
        from ablation_core.report import code
        from ablation_core.report.heads.neurons import describe_neurons
        from ablation_core.selection import Selection

        with self._turn(model) as loaded:
            chosen = Selection.read(select, loaded.shape)
            if len(chosen) > MOST_NEURONS:
                raise SelectionError(
                    f"At most {MOST_NEURONS} neurons are described at once, and {select} names {len(chosen):,}."
                )
            ref, known = self._data_ref(loaded, data), self._statistics(loaded, self._data_ref(loaded, data))
            if known is None:
                raise DataError(f"This server has no statistics of {model} made from {ref}.")
            command = code.neuron_command(loaded.info, known, str(chosen), bins)
            return describe_neurons(loaded, known, chosen, bins=bins) | {"command": self._access.public(command)}

    def ablate(
        self, model: str, select: str, methods: Sequence[str] = ("mean",), data: str | None = None,
        predictions: int = _PREDICTIONS, seed: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Replace neurons by one or several methods and measure what changes: loss, top-1, top-10 and KL.

        `select` names neurons: "3.2" is head 2 of layer 3, "3.2:0-7" neurons of it, "3.*" a layer. Changes are paired and have
        95% intervals; the noise floor is the range of changes by as many random other neurons of the same layers.
        """
        from ablation_core.engine.clean_passes import CleanPassCache
        from ablation_core.experiments.ablation import ablate
        from ablation_core.experiments.noise_floor import noise_floor_steps
        from ablation_core.experiments.spec import DEFAULT_BINS
        from ablation_core.methods.registry import choose_methods
        from ablation_core.report import code
        from ablation_core.report.sentences import comparison, verdict
        from ablation_core.selection import Selection

        with self._turn(model) as loaded:
            chosen = Selection.read(select, loaded.shape)
            rows = choose_methods(list(methods), loaded.modality)
            measured, known = self._measured(loaded, data, predictions, seed)
            result = ablate(loaded, measured, chosen, [row.name for row in rows], statistics=known)
            cheap = [row.name for row in rows if not row.learned]
            cache = CleanPassCache(loaded, measured)
            steps = noise_floor_steps(cache, chosen, known, measured.seed, cheap, DEFAULT_BINS) if cheap else ()
            floor = next(iter(deque(steps, maxlen=1)), None)
            document, names = result.to_dict(), [row.method for row in result.results]
            bands = {} if floor is None else floor.bands
            command = code.selection_command(document, names, result.select)
            return document | {
                "sentences": [*(verdict(result, name, floor) for name in names), comparison(result)],
                "noise_floor": {
                    name: {metric: {"low": low, "high": high} for metric, (low, high) in spans.items()}
                    for name, spans in bands.items()
                },
                "command": self._access.public(command),
            }

    def estimate(
        self, model: str, methods: Sequence[str] = ("mean",), data: str | None = None,
        predictions: int = _PREDICTIONS, seed: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Estimate from gradients, without ablating, what removing each head would change; the largest are listed.

        Use it to choose what to measure: estimates have standard errors, and large displacements can differ.
        """
        from ablation_core.experiments.estimate import estimate
        from ablation_core.report import code

        with self._turn(model) as loaded:
            measured, known = self._measured(loaded, data, predictions, seed)
            document = estimate(loaded, measured, list(methods), statistics=known).to_dict()
        for row in document["results"]:
            row["heads"] = sorted(row["heads"], key=lambda head: -(head["loss"]["estimate"] or 0.0))[:LISTED]
        command = code.estimate_command(document, [row["method"] for row in document["results"]])
        return document | {"command": self._access.public(command)}

    def head(
        self, model: str, head: str, data: str | None = None, predictions: int = 500, seed: int = 0
    ) -> dict[str, Any]:
        """Describe one head ("3.2"): what kind it is, what it writes, where its neurons are largest, and its direct and total effect."""
        from ablation_core.experiments.spec import DEFAULT_BINS
        from ablation_core.heads.describe import describe_head
        from ablation_core.report import code

        with self._turn(model) as loaded:
            measured, known = self._measured(loaded, data, predictions, seed)
            methods = ["zero" if known is None else "mean"]
            found = describe_head(loaded, measured, head, methods, known, bins=DEFAULT_BINS)
            command = code.head_command(found.to_dict(), methods, head, DEFAULT_BINS)
            return found.to_dict() | {"command": self._access.public(command)}

    def sweep(
        self, model: str, heads: str = "*.*", methods: Sequence[str] = ("mean",), data: str | None = None,
        predictions: int = 500, seed: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Ablate heads one at a time, each with interval, p and q (false discovery rate over these heads).

        `heads` names them: "3.*" is a layer, "3.2 5.0" two heads, "*.*" all. The noise floor is the range of changes by random
        sets of one head's size.
        """
        from ablation_core.methods.registry import choose_methods
        from ablation_core.report import code
        from ablation_core.report.run_sentences import sweep_sentence
        from ablation_core.runs.whole_runs import sweep
        from ablation_core.selection import Selection

        with self._turn(model) as loaded, TemporaryDirectory() as folder:
            chosen = Selection.read(heads, loaded.shape)
            names = [row.name for row in choose_methods(list(methods), loaded.modality)]
            work = (len(chosen.heads) + RANDOM_SETS) * len(names) * predictions
            if work > MOST_ABLATED:
                raise DataError(
                    f"That is {work:,} ablated predictions, and a sweep here has at most {MOST_ABLATED:,}. Name fewer heads, "
                    f"methods or predictions."
                )
            measured, known = self._measured(loaded, data, predictions, seed)
            result = sweep(
                loaded, measured, names, statistics=known, heads=chosen, random_sets=RANDOM_SETS, cache=folder
            )
            document = result.to_dict()
        for row in document["heads"]:
            row["command"] = self._access.public(code.selection_command(document, names, row["head"]))
        return document | {"sentences": [sweep_sentence(result, name, "loss") for name in names]}

    @contextmanager
    def _turn(self, ref: str) -> "Iterator[LoadedModel]":
        """The model, for one call at a time; the one before it is let go of."""
        from ablation_core.loading.load import load_model

        self._access.check_model(ref)
        with self._turns:
            if self._model is None or self._model.ref != ref:
                self._model = None
                self._model = load_model(ref)
            yield self._model

    def _data_ref(self, model: "LoadedModel", ref: str | None) -> str:
        return self._access.check_data(ref or usual_data(model.ref, model.modality))

    def _measured(
        self, model: "LoadedModel", ref: str | None, predictions: int, seed: int
    ) -> "tuple[Data, Statistics | None]":
        from ablation_core.activations.files import find_for_data, load_statistics
        from ablation_core.data.load import load_data

        count, name = self._access.check_predictions(predictions), self._data_ref(model, ref)
        data = load_data(name, model, predictions=count, seed=seed)
        entry = find_for_data(model, data)
        return data, load_statistics(entry.path, model) if entry else None

    @staticmethod
    def _statistics(model: "LoadedModel", ref: str) -> "Statistics | None":
        from ablation_core.activations.files import find_statistics, load_statistics

        entry = find_statistics(model, ref)
        return load_statistics(entry.path, model) if entry else None
