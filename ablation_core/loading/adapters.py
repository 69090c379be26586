"""A PEFT adapter's folder: it holds a few weights and names the model that they belong to. Loaded, they are merged into it.

An adapter may be made for another task than its model was saved for, and then brings the head that predicts
(`modules_to_save`): what it says of its task decides what the model is.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ablation_core.errors import ModelError, first_line
from ablation_core.loading.folders import leads_out
from ablation_core.models.info import Modality

SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_TASKS: dict[str, Modality] = {"CAUSAL_LM": "causal", "SEQ_CLS": "text-classification"}
_HEAD = re.compile(r"(score|classifier|classifier\.out_proj)\.weight$")
_ADDED = re.compile(
    r"\.?(lora_|ia3_|vera_|hada_|lokr_|oft_|boft_|hra_|modules_to_save_bias|prompt_|adaption_|fourierft_|trainable_tokens_)"
)


@dataclass(frozen=True)
class Adapter:
    """An adapter's reference and folder.

    Attributes:
        task: what it says that it was made for, as PEFT writes that (`CAUSAL_LM`); empty where it says nothing.
    """

    ref: str
    folder: Path
    task: str = ""

    @property
    def modality(self) -> Modality | None:
        """What a model with it predicts; None where it does not say.

        Raises:
            ModelError: nothing that is measured here.
        """
        if not self.task:
            return None
        if self.task not in _TASKS:
            raise ModelError(
                f"The adapter {self.ref} was made for the task {self.task}; adapters of language models (CAUSAL_LM) and of "
                f"text classifiers (SEQ_CLS) can be measured."
            )
        return _TASKS[self.task]

    @property
    def whole(self) -> dict[str, tuple[int, ...]]:
        """The weights that it brings whole, such as those of a head: their names in the model, and shapes."""
        from safetensors import safe_open

        with safe_open(self.folder / WEIGHTS, "pt") as file:
            names = {name: _own_name(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return {
                own: tuple(file.get_slice(name).get_shape()) for name, own in names.items() if not _ADDED.search(own)
            }

    @property
    def classes(self) -> int | None:
        """The number of classes of the head that it brings, if it brings one."""
        heads = [shape[0] for name, shape in self.whole.items() if _HEAD.match(name)]
        return heads[-1] if heads else None

    @property
    def tokenizer(self) -> Path | None:
        """Its folder where a tokenizer lies there: training may have added tokens."""
        there = any((self.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
        return self.folder if there else None


def _own_name(name: str) -> str:
    """A weight's name in the model, of that in an adapter: PEFT wraps what it adapts, an embedding or a bias too."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no whole model."""
    return (folder / SETTINGS).is_file() and not (folder / "config.json").is_file()


def read_adapter(ref: str, folder: Path) -> tuple[str, Adapter]:
    """The reference of the model that an adapter belongs to, and the adapter.

    Raises:
        ModelError: it names none, the folder cannot be used, or the package peft is not installed.
    """
    if leads_out(folder):
        raise ModelError(
            f"Files of the adapter {ref} lead out of its folder; links are not followed. Copy them instead."
        )
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        name, task = settings["base_model_name_or_path"], settings.get("task_type")
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ModelError(f"The adapter {ref} does not name its model in {SETTINGS} ({first_line(error)}).") from error
    if not isinstance(name, str) or not name:
        raise ModelError(f"The adapter {ref} does not name its model in {SETTINGS} (base_model_name_or_path).")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"The adapter {ref} has no {WEIGHTS}; other files of weights are not read.")
    if importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"{ref} is an adapter, which the package peft reads, and that is not installed here. Install it, or merge the "
            f"adapter into its model and save that."
        )
    return name, Adapter(ref, folder, task if isinstance(task, str) else "")


def merge_adapter(adapter: Adapter, module: torch.nn.Module) -> torch.nn.Module:
    """The module with the adapter's weights added to its own, or in their place.

    Raises:
        ModelError: they do not fit, or cannot be merged.
    """
    from peft import PeftModel

    try:
        wrapped = PeftModel.from_pretrained(module, str(adapter.folder), use_safetensors=True, local_files_only=True)
        if wrapped.active_peft_config.is_prompt_learning:
            kind = str(getattr(wrapped.active_peft_config.peft_type, "value", "")).lower().replace("_", " ")
            raise ModelError(
                f"The adapter {adapter.ref} puts learned tokens before each text ({kind}) and changes no weights, so that it "
                f"cannot be merged into its model; only adapters of weights, such as LoRA, can be measured."
            )
        merged: torch.nn.Module = wrapped.merge_and_unload()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"The adapter {adapter.ref} cannot be merged into its model ({first_line(error)}).") from error
    names = set(merged.state_dict())
    if lost := sorted(name for name in adapter.whole if name not in names):
        raise ModelError(
            f"The adapter {adapter.ref} brings weights that its model has no place for ({lost[0]}): it was made for another "
            f"kind of model than {type(merged).__name__}."
        )
    return merged
