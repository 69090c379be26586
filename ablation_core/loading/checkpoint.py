"""What a saved model says about itself beside its weights: flags that change a forward's form, and keys that do not fit."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

from ablation_core.errors import ModelError
from ablation_core.models.settings import FORM_FLAGS

# How attention may be computed: so that it is seen, and without a further package. Others give the same but for rounding.
_SEEN_ATTENTION = ("eager", "sdpa")
_OTHER_HEAD = re.compile(
    r"^(?!lm_head)(\w*(head|score|classifier)\w*|qa_outputs|summary|sequence_summary|logits_proj|linear|"
    r"embedding_projection)\."
)
# Buffers that older releases saved, and that today's make by themselves.
_MADE = re.compile(
    r"(bias|masked_bias|inv_freq|cos_cached|sin_cached|position_ids|token_type_ids|_mask|relative_position_index|"
    r"num_batches_tracked|_float_tensor|embed_positions\S*)$"
)
# The bias of a linear map; `attn.bias` alone is how older releases called the mask of causal attention.
_BIAS = re.compile(
    r"\.\d+\.\S*(q|k|v|o|qkv|query|key|value|query_key_value|out|gate|up|down|fc\d?|c|dense)(_proj|_attn|_fc)?\.bias$"
)
_LIBRARIES = {
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "bitsandbytes_4bit": ("bitsandbytes", "bitsandbytes"),
    "bitsandbytes_8bit": ("bitsandbytes", "bitsandbytes"),
    "gptq": ("gptqmodel", "gptqmodel"),
    "awq": ("gptqmodel", "gptqmodel"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "hqq": ("hqq", "hqq"),
    "aqlm": ("aqlm", "aqlm"),
    "quanto": ("optimum.quanto", "optimum-quanto"),
    "eetq": ("eetq", "eetq"),
    "torchao": ("torchao", "torchao"),
}


def check_stored(ref: str, module: Any, stored: dict[str, str]) -> None:
    """Refuse weights that are stored as whole numbers where the model computes with others.

    Args:
        stored: each weight's type, as safetensors files call it.

    Raises:
        ModelError: they are quantised, and nothing says how.
    """
    whole = {name for name, kind in stored.items() if kind.startswith(("I", "U"))}
    if getattr(module.config, "quantization_config", None) or not whole:
        return
    floating = {name for name, weight in module.named_parameters() if weight.is_floating_point()}
    if found := sorted(whole & floating):
        raise ModelError(
            f"{ref} stores weights as whole numbers ({len(found)}, such as {found[0]} as {stored[found[0]].lower()}), and its "
            f"config.json has no quantization_config that says what they stand for. Save the model again as it was trained."
        )


def plain_flags(config: Any) -> None:
    """Set the flags that change only a forward's form, in a configuration and those inside it."""
    for name, value in FORM_FLAGS.items():
        if name in vars(config) or f"_{name}" in vars(config):
            try:
                setattr(config, name, value)
            except AttributeError:  # a property without a setter follows another flag
                continue
    if vars(config).get("_attn_implementation_internal") not in (None, *_SEEN_ATTENTION):
        config._attn_implementation_internal = None  # transformers chooses one that every machine has
    for inner in vars(config).values():
        if hasattr(inner, "model_type") and hasattr(inner, "to_dict"):
            plain_flags(inner)


def class_names(config: Any) -> tuple[str, ...]:
    """The classes as a configuration names them, in order; LABEL_0 and so on where it does not."""
    names = getattr(config, "id2label", None) or {}
    return tuple(str(names.get(number, f"LABEL_{number}")) for number in range(config.num_labels))


def check_classes(ref: str, config: Any) -> None:
    """Refuse a classifier's head that does not choose one class of several.

    Raises:
        ModelError: it gives a number, or several classes at once.
    """
    problem = getattr(config, "problem_type", None)
    if config.num_labels < 2 or problem == "regression":
        raise ModelError(
            f"{ref} gives {config.num_labels} number{'s' * (config.num_labels != 1)} per input, not the probabilities of "
            f"classes (a regression or reward head); only classifiers with two classes or more can be measured."
        )
    if problem == "multi_label_classification":
        raise ModelError(
            f"{ref} may give an input several classes at once (multi_label_classification); only classifiers that choose "
            f"one class can be measured."
        )


def check_library(ref: str, config: Any) -> None:
    """Refuse a quantised model whose library is not installed.

    Raises:
        ModelError: with the library's name.
    """
    settings = getattr(config, "quantization_config", None)
    if not settings:
        return
    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
    method = str(getattr(method, "value", method) or "an unknown method")
    if isinstance(settings, dict) and method == "an unknown method" and any("bit" in name for name in settings):
        method = "bitsandbytes"
    if method not in _LIBRARIES:
        return
    module, package = _LIBRARIES[method]
    if not _installed(module):
        raise ModelError(
            f"{ref} is quantised by {method}, which the package {package} reads, and that is not installed here. "
            f"Install it, or use the model without quantisation."
        )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _common_prefix(missing: set[str], unused: set[str]) -> str:
    """What stands before the name of each weight that was left over, where without it each is one that is missing."""
    one = min(unused, default="")
    found = [one.removesuffix(name) for name in sorted(missing) if one.endswith(f".{name}")]
    return next((prefix for prefix in found if all(key.removeprefix(prefix) in missing for key in unused)), "")


def check_keys(ref: str, task: str, read: dict[str, Any]) -> None:
    """Refuse a model that lacks weights, or has some for which there is no place.

    Args:
        read: transformers' loading info.

    Raises:
        ModelError: what would be measured is not what was saved.
    """
    if prefix := _common_prefix(set(read["missing_keys"]), set(read.get("unexpected_keys") or ())):
        raise ModelError(
            f"The names of the weights of {ref} all begin with {prefix!r}: the module was saved inside a wrapper (such as "
            f"torch.compile, DataParallel or PEFT). Save the module inside it."
        )
    if absent := sorted(read["missing_keys"]) + sorted(str(key) for key in read["mismatched_keys"]):
        raise ModelError(
            f"{ref} lacks weights that a {task} needs ({len(absent)}, such as {absent[0]}), and random ones "
            f"would be measured in their place. Was it saved for another task?"
        )
    unused = sorted(read.get("unexpected_keys") or ())
    heads = [key for key in unused if _OTHER_HEAD.match(key)]
    if heads:
        raise ModelError(
            f"{ref} was saved for another task than a {task}: it holds {heads[0]}, which a {task} has no place for."
        )
    blocks = [key for key in unused if re.search(r"\.\d+\.", key) and not _MADE.search(key)]
    blocks += [key for key in unused if _BIAS.search(key)]
    if blocks:
        raise ModelError(
            f"{ref} holds {len(blocks)} weights of its blocks that its configuration has no place for (such as "
            f"{blocks[0]}): what would be measured is not the model that was saved."
        )
