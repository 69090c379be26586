"""Who ablates: the engine, plain hooks, and libraries where they are installed. Each means: the clean run, then these heads."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun, step_together
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Head, Selection

FIVE = ("zero", "mean", "median", "peak", "resample-dataset")
Heads = Callable[[Sequence[Head]], object]
Inputs = dict[str, Tensor]
Logits = Callable[[Inputs], Tensor]


class Scorer:
    """Loss, top-1, top-10 and KL from all logits, in torch's plain words; the clean log-probabilities are kept."""

    def __init__(self, batches: list[tuple[Inputs, Tensor]]) -> None:
        self._batches, self._clean = batches, list[Tensor]()

    @torch.inference_mode()
    def keep(self, logits: Logits) -> None:
        self._clean = [self._scored(logits(inputs), targets)[0] for inputs, targets in self._batches]

    @torch.inference_mode()
    def means(self, logits: Logits) -> dict[str, float]:
        parts = []
        for clean, (inputs, targets) in zip(self._clean, self._batches, strict=True):
            found, wanted = self._scored(logits(inputs), targets)
            parts.append(
                {
                    "loss": F.nll_loss(found, wanted, reduction="none"),
                    "top1": (found.argmax(-1) == wanted).float(),
                    "top10": (found.topk(10).indices == wanted[:, None]).any(-1).float(),
                    "kl": F.kl_div(found, clean, log_target=True, reduction="none").sum(-1),
                }
            )
        return {name: float(torch.cat([part[name] for part in parts]).double().mean()) for name in parts[0]}

    @staticmethod
    def _scored(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (predictions, classes) and targets: of text, all positions of a window but the last."""
        if targets.ndim > 1:
            logits, targets = logits[:, :-1].flatten(0, 1), targets[:, :-1].flatten()
        return logits.log_softmax(-1), targets


class Hooks:
    """Plain hooks on the projections, whole passes, all logits: what one writes without a library."""

    def __init__(self, model: LoadedModel, data: Data, statistics: Statistics) -> None:
        self.model, self.size = model, model.shape.head_dim
        self._values = {
            "zero": statistics.mean * 0,
            "mean": statistics.mean,
            "median": statistics.median(),
            "peak": statistics.peak(),
        }
        self.batches = [(self._here(batch.inputs), batch.targets.to(model.device)) for batch in data]
        other = METHODS[FIVE[-1]].source  # the same sequences as the engine takes its values from
        assert other is not None
        self._others = [self._here(other(model, data, data.numbers(n), 0).inputs) for n in range(len(data))]
        self.scorer = Scorer(self.batches)

    def _here(self, inputs: Inputs) -> Inputs:
        return {name: tensor.to(self.model.device) for name, tensor in inputs.items()}

    @torch.inference_mode()
    def logits(self, inputs: Inputs) -> Tensor:
        settings = {} if self.model.modality == "vision" else {"use_cache": False}
        return self.model.module(**inputs, **settings).logits.float()

    def plain(self) -> None:
        for inputs, _ in self.batches:
            self.logits(inputs)

    def heads(self, heads: Sequence[Head]) -> list[dict[str, float]]:
        self.scorer.keep(self.logits)
        return [self.ablated(head, "mean") for head in heads]

    def five(self, head: Head) -> list[dict[str, float]]:
        self.scorer.keep(self.logits)
        return [self.ablated(head, method) for method in FIVE]

    def ablated(self, head: Head, method: str) -> dict[str, float]:
        layer, number = head
        place, projection = slice(number * self.size, (number + 1) * self.size), self.model.projections[layer]
        if method in self._values:
            constant = torch.from_numpy(self._values[method][layer, number].copy()).to(self.model.device)
            values = iter([constant] * len(self.batches))
        else:
            values = iter([self._read(projection, inputs)[..., place] for inputs in self._others])

        def put(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            changed = args[0].clone()
            changed[..., place] = next(values)
            return (changed, *args[1:])

        handle = projection.register_forward_pre_hook(put)
        try:
            return self.scorer.means(self.logits)
        finally:
            handle.remove()

    def _read(self, projection: nn.Module, inputs: Inputs) -> Tensor:
        seen: list[Tensor] = []
        handle = projection.register_forward_pre_hook(lambda _module, args: seen.append(args[0].clone()))
        try:
            self.logits(inputs)
        finally:
            handle.remove()
        return seen[0]


class Engine:
    """The project's own: clean passes once, every head resumed at its layer."""

    def __init__(self, model: LoadedModel, data: Data, statistics: Statistics) -> None:
        self.model, self.data, self.statistics = model, data, statistics

    def heads(self, heads: Sequence[Head]) -> list[dict[str, float]]:
        cache = CleanPassCache(self.model, self.data)
        runs = [self._run(head, ("mean",), cache) for head in heads]
        for _ in range(len(self.data)):
            step_together(runs)
        return [self._means(run)["mean"] for run in runs]

    def five(self, head: Head) -> list[dict[str, float]]:
        run = self._run(head, FIVE, CleanPassCache(self.model, self.data)).finish()
        return list(self._means(run).values())

    def _run(self, head: Head, methods: Sequence[str], cache: CleanPassCache) -> AblationRun:
        spec = AblationSpec(Selection.of_heads([head], self.model.shape), tuple(METHODS[name] for name in methods))
        return AblationRun(self.model, self.data, spec, self.statistics, cache)

    @staticmethod
    def _means(run: AblationRun) -> dict[str, dict[str, float]]:
        _, ablated, _ = run.scores()
        return {name: {key: float(part.mean()) for key, part in one.values.items()} for name, one in ablated.items()}


def libraries(hooks: Hooks) -> dict[str, Heads | str]:
    """The other libraries' way to ablate these heads by the mean, or why there is none."""
    makers = {"nnsight": _nnsight, "transformer_lens": _transformer_lens}
    found: dict[str, Heads | str] = {}
    for name, make in makers.items():
        if find_spec(name) is None:
            found[name] = "not installed"
        elif hooks.model.modality == "vision":
            found[name] = "not for images"
        else:
            try:
                found[name] = make(hooks)
            except Exception as error:  # noqa: BLE001 (a library may refuse a model in any way)
                found[name] = f"failed: {type(error).__name__}: {error}"[:300]
    return found


def _nnsight(hooks: Hooks) -> Heads:
    from nnsight import NNsight

    model = NNsight(hooks.model.module)
    names = {module: name for name, module in hooks.model.module.named_modules()}

    def heads(wanted: Sequence[Head]) -> list[dict[str, float]]:
        hooks.scorer.keep(hooks.logits)
        return [one(layer, number) for layer, number in wanted]

    def one(layer: int, number: int) -> dict[str, float]:
        value = torch.from_numpy(hooks._values["mean"][layer, number].copy()).to(hooks.model.device)
        place = slice(number * hooks.size, (number + 1) * hooks.size)

        def logits(inputs: Inputs) -> Tensor:
            with model.trace(**inputs, use_cache=False):
                envoy: Any = model
                for part in names[hooks.model.projections[layer]].split("."):
                    envoy = envoy[int(part)] if part.isdigit() else getattr(envoy, part)
                envoy.input[:, :, place] = value
                saved = model.output.logits.save()
            return saved.float()

        return hooks.scorer.means(logits)

    return heads


def _transformer_lens(hooks: Hooks) -> Heads:
    from transformer_lens.model_bridge import TransformerBridge

    dtype, device = getattr(torch, hooks.model.dtype), str(hooks.model.device)
    with TemporaryDirectory() as folder:
        hooks.model.module.save_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, dtype=dtype, device=device)

    def heads(wanted: Sequence[Head]) -> list[dict[str, float]]:
        hooks.scorer.keep(lambda inputs: bridge(inputs["input_ids"], use_cache=False).float())
        return [one(layer, number) for layer, number in wanted]

    def one(layer: int, number: int) -> dict[str, float]:
        value = torch.from_numpy(hooks._values["mean"][layer, number].copy()).to(device, dtype)

        def put(z: Tensor, hook: object) -> Tensor:
            z[:, :, number, :] = value
            return z

        points = [(f"blocks.{layer}.attn.hook_z", put)]
        return hooks.scorer.means(
            lambda inputs: bridge.run_with_hooks(inputs["input_ids"], fwd_hooks=points, use_cache=False).float()
        )

    return heads
