"""What each method puts in the selected neurons' place: constants, learned or not, means by position, a source run's values."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Batch
from ablation_core.engine import clean_passes, forward
from ablation_core.engine.hooks import Replace
from ablation_core.errors import MethodError
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.optimal import OptimalRun, training_data
from ablation_core.methods.positional import positional_means
from ablation_core.methods.registry import METHODS, Method, check_statistics, constant_values


class Replacements:
    """The replacements of an experiment's methods, batch by batch, at the positions that are named.

    Args:
        learned: what another run of the same experiment has learned, which is then not learned again.

    Raises:
        MethodError: a method needs statistics and there are none; the bins are not a number that it can have.
        DataError: constants would be learned on data with several answers.
    """

    def __init__(
        self,
        clean_cache: clean_passes.CleanPassCache,
        spec: AblationSpec,
        statistics: Statistics | None,
        learned: Mapping[str, dict[int, Replace]] | None = None,
    ) -> None:
        if not isinstance(spec.bins, int) or spec.bins < 1:
            most = "those of the statistics" if statistics is None else statistics.bins
            raise MethodError(f"The bins must be a whole number between 1 and {most}, not {spec.bins!r}.")
        self.clean_cache, self.model, self.data = clean_cache, clean_cache.model, clean_cache.data
        self.spec, self.statistics = spec, statistics
        self._constants: dict[str, dict[int, Replace]] = {}
        self.learners: dict[str, OptimalRun] = {}
        for method in spec.methods:
            check_statistics(method, statistics)
            if method.constant:
                self._constants[method.name] = self._by_constants(
                    constant_values(method, statistics, spec.selection, spec.bins)
                )
            if learned and method.name in learned:
                self._constants[method.name] = learned[method.name]
            elif method.learned:
                self.data.check_one_answer(f"the method {method.name}")
                self.learners[method.name] = self._learner()

    def learn(self) -> bool:
        """One step of learning constants; False where none is left."""
        for name, learner in self.learners.items():
            if learner.steps_done < learner.steps:
                learner.step()
                self._constants[name] = self._by_constants(learner.values())
                return True
        return False

    def learned(self) -> dict[str, dict[int, Replace]]:
        """Each learned method's replacements, so far."""
        return {name: self._constants.get(name, {}) for name in self.learners}

    def of(
        self, method: Method, rows: Sequence[int], number: int | None = None, batch: Batch | None = None
    ) -> dict[int, Replace]:
        """What the method puts in the selected neurons' place in a batch of these sequences, layer by layer.

        Args:
            number: of the batch, if it is one of the data's: what sources give there is then shared.
            batch: the sequences, where they are at hand.
        """
        if not self.spec.selection.chosen:
            return {}
        replacements = self._everywhere(method, rows, number)
        if self.spec.positions.everywhere:
            return replacements
        where = self.spec.positions.mask(self.data.rows(rows) if batch is None else batch)
        return clean_passes.at_positions(replacements, where)

    def _everywhere(self, method: Method, rows: Sequence[int], number: int | None) -> dict[int, Replace]:
        """The same at every position."""
        selection, seed = self.spec.selection, self.spec.seed
        if method.positional:
            means = self.clean_cache.once(
                positional_means, lambda: positional_means(self.model, training_data(self.model, self.data), self.data)
            )
            return clean_passes.resampled_replacements(selection, means)
        source = method.source
        if source is None:
            return self._constants[method.name]

        def resampled(layers: Sequence[int]) -> dict[int, Tensor]:
            return forward.z_values(self.model, source(self.model, self.data, rows, seed), layers)

        every = range(self.model.num_layers)
        if method.one_source:
            values = self.clean_cache.once((method.name, seed), lambda: resampled(every))
        elif number is not None:
            values = self.clean_cache.resampled(number, (method.name, seed), lambda: resampled(every))
        else:
            values = resampled(selection.layers)
        return clean_passes.resampled_replacements(selection, values)

    def _by_constants(self, values: np.ndarray) -> dict[int, Replace]:
        return clean_passes.constant_replacements(self.spec.selection, values, self.model)

    def _learner(self) -> OptimalRun:
        assert self.statistics is not None  # checked for every method that learns
        training = self.clean_cache.once(
            OptimalRun, lambda: clean_passes.CleanPassCache(self.model, training_data(self.model, self.data))
        )
        starts = {
            name: constant_values(METHODS[name], self.statistics, self.spec.selection, self.spec.bins)
            for name in ("zero", "mean", "median", "peak")
        }
        return OptimalRun(training, self.spec.selection, starts, self.statistics.std, self.spec.positions)
