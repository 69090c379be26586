"""What a model makes of a person's own input before and after an ablation, and what it would have written."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import IGNORED, Batch
from ablation_core.data.user_input import NEW_TOKENS, UserInput, text_inputs
from ablation_core.engine import clean_passes, forward, hooks, scoring
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import Method
from ablation_core.models.loaded import LoadedModel


@dataclass(frozen=True, eq=False)
class Answer:
    """Distributions over tokens or classes at each place asked for.

    Attributes:
        before: probabilities of the clean model; float32 (places, classes).
        after: method name → the same with the ablation.
    """

    before: np.ndarray
    after: dict[str, np.ndarray]


class UserInputRun:
    """An input with the ablations of a selection by several methods.

    Attributes:
        replacements: method name → layer → what z is replaced with.
    """

    def __init__(
        self, model: LoadedModel, own: UserInput, spec: AblationSpec, statistics: Statistics | None = None
    ) -> None:
        """
        Args:
            spec: which neurons and methods; without a selected neuron nothing changes.
        """
        self.model, self.own, self.spec = model, own, spec
        self.run = AblationRun(model, own.data, spec, statistics)
        self.replacements = {method.name: self._fitting(method) for method in spec.methods}

    def _fitting(self, method: Method) -> dict[int, hooks.Replace]:
        """The method's replacements for an input of any length up to the sources'."""
        length = None if self.model.modality == "vision" else self.own.data.seq_len

        def fitted(swap: hooks.Replace) -> hooks.Replace:
            if length is None:
                return swap

            def cut(z: Tensor) -> Tensor:
                missing = length - z.shape[1]
                return swap(torch.nn.functional.pad(z, (0, 0, 0, missing)))[:, : z.shape[1]]

            return cut

        return {layer: fitted(swap) for layer, swap in self.run.replacements.of(method, [0]).items()}

    def answer(self) -> Answer:
        """What the model predicts at the places asked for."""
        clean_pass = forward.record(self.model, self.own.asked)
        outputs = [clean_passes.ablated_output(self.model, clean_pass, swaps) for swaps in self.replacements.values()]
        before, *after = scoring.log_probabilities(self.model, clean_pass, [clean_pass.outputs[-1], *outputs])
        shares = [log_probs.exp().numpy() for log_probs in after]
        return Answer(before.exp().numpy(), dict(zip(self.replacements, shares, strict=True)))

    def losses(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Of a prompt's own tokens the loss in nats, before and by each method; float64 (tokens but the first,)."""
        baseline, ablated, _ = self.run.finish().scores()
        return baseline.loss, {name: scores.loss for name, scores in ablated.items()}

    def continuations(self, new_tokens: int = NEW_TOKENS) -> Iterator[dict[str, list[int]]]:
        """What a causal model writes greedily, grown by one token at a time: `clean` and each method → token ids.

        The clean model and every ablated one are a row each of one batch. Every forward goes over the whole text, with
        the same replacement at each of its positions. A row that has ended itself grows no more.
        """
        names = ["clean", *(name for name, swaps in self.replacements.items() if swaps)]
        swaps = _stacked([{}, *(self.replacements[name] for name in names[1:])])
        ids = self.own.asked.inputs["input_ids"].to(self.model.device).repeat(len(names), 1)
        start, ends = ids.shape[1], self._ends()
        written: dict[str, list[int]] = {name: [] for name in names}
        ended: set[str] = set()
        for _ in range(new_tokens):
            targets = torch.full_like(ids, IGNORED)
            targets[:, -1] = 0
            clean_pass = CleanPass(Batch(text_inputs(ids), targets), [])  # nothing recorded: the whole model runs
            output = clean_passes.ablated_output(self.model, clean_pass, swaps)
            following = scoring.log_probabilities(self.model, clean_pass, [output])[0].argmax(1)
            ids = torch.cat([ids, following.to(ids.device)[:, None]], dim=1)
            ended |= {name for name, token in zip(names, following.tolist(), strict=True) if token in ends}
            for row, name in enumerate(names):
                if name not in ended:
                    written[name] = ids[row, start:].tolist()
            yield {name: list(tokens) for name, tokens in written.items()}
            if len(ended) == len(names):
                return

    def _ends(self) -> set[int]:
        """The tokens that end a text."""
        config = getattr(self.model.module, "generation_config", None)
        ends = getattr(config, "eos_token_id", None)
        ends = [self.model.tokenizer.eos_token_id] if ends is None else ends if isinstance(ends, list) else [ends]
        return {end for end in ends if end is not None}


def _stacked(rows: list[dict[int, hooks.Replace]]) -> dict[int, hooks.Replace]:
    """Replacements for a batch that has a row for each of these."""

    def swap_rows(layer: int) -> hooks.Replace:
        def swap(z: Tensor) -> Tensor:
            parts = zip(rows, z.split(1), strict=True)
            return torch.cat([swaps[layer](part) if layer in swaps else part for swaps, part in parts])

        return swap

    layers = sorted({layer for swaps in rows for layer in swaps}) or [0]  # a clean run needs a layer to begin with
    return {layer: swap_rows(layer) for layer in layers}
