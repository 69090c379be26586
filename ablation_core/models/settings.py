"""What decides a module's passes beside its weights: the settings that it was built with.

    settings_of(module)   # {"class": "OPTForCausalLM", "config": {"activation_function": "gelu", …}, "parts": {}}

Of a transformers model they are what its configuration says other than the defaults of its class, so that a field which a
later release adds changes nothing. timm's modules keep no configuration, and some parts follow none: PEFT's layers, a
person's own, and those that a person has edited or put in a part's place. Of these, the class and the plain attributes
of each part.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import types
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablation_core.models.own_code import CONFIGURED, KNOWN, code_of, home, own_name

Settings = dict[str, Any]
Parts = dict[str, dict[str, Any]]  # by name
Noted = frozenset[tuple[str, str]]  # a part's name, and what it is called there

# Flags of a configuration that change what a forward returns, and no prediction; the engine has them so.
FORM_FLAGS = {
    "return_dict": True,
    "use_return_dict": True,
    "torchscript": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_router_logits": False,
    "output_logits": False,
    "output_past": False,
    "output_scores": False,
    "chunk_size_feed_forward": 0,
    "gradient_checkpointing": False,
}
# What else changes no pass: names, origins, and how something is computed that comes to the same but for rounding. The
# weights' types are told by the weights, the class by the module.
_PASSING = frozenset(FORM_FLAGS) | {
    "use_cache", "name_or_path", "_name_or_path", "_model_name_or_path", "transformers_version", "torch_dtype", "dtype",
    "_commit_hash", "id2label", "label2id", "architectures", "auto_map", "task_specific_params", "attn_implementation",
    "_attn_implementation", "_attn_implementation_internal", "_attn_implementation_autoset", "experts_implementation",
    "_experts_implementation", "_experts_implementation_internal",
}  # fmt: skip
_PASSING_OF_PARTS = _PASSING | {
    "fused_attn", "grad_checkpointing", "pretrained_cfg", "default_cfg", "feature_info", "_is_hf_initialized", "_hf_hook",
    "_gradient_checkpointing_func", "_old_forward", "_model_args", "_traits", "pretrained_model_args", "_is_torch_compile", "weight_init_mode",
    *vars(nn.Module()),
}  # fmt: skip
_NOTED = ("max_seq_len_cached",)  # by a pass: the longest input so far, of rotations that follow it
_REPLACEABLE = ("torch", "transformers")
_NOT_PLAIN = object()


def settings_of(module: nn.Module, built: Parts | None = None, noted: Noted = frozenset()) -> Settings:
    """A module's settings; equal for modules that give the same numbers with the same weights.

    >>> from torch import nn
    >>> settings_of(nn.GELU("tanh"))["parts"][""]
    {'class': 'GELU', 'approximate': 'tanh'}

    Args:
        built: each part as it was built (`parts_of`): others do not follow the configuration.
        noted: what parts note about their passes (`noted_between`), and is no setting.
    """
    config = getattr(module, "config", None)
    configured = hasattr(config, "to_dict")

    def follows(name: str, part: nn.Module) -> bool:
        if not configured or home(part) not in CONFIGURED:
            return False
        return built is None or home(part) not in _REPLACEABLE or built.get(name) == _described(part)

    parts = {name: _described(part) for name, part in module.named_modules() if not follows(name, part)}
    for name, told in noted:
        parts.get(name, {}).pop(told, None)
    return _settings(type(module).__name__, _told(config) if configured else {}, parts)


def parts_of(module: nn.Module) -> Parts:
    """Each part of a module: its class and its plain attributes."""
    return {name: _described(part) for name, part in module.named_modules()}


def noted_between(before: Parts, module: nn.Module) -> Noted:
    """What a person's own parts note about their passes, such as a count or the last input, by passes since `before`."""
    own = {name for name, part in module.named_modules() if home(part) not in KNOWN}
    after = parts_of(module)
    told = {(name, one) for name in own for one in before.get(name, {}).keys() | after[name].keys()}
    return frozenset(
        (name, one)
        for name, one in told
        if before.get(name, {}).get(one, _NOT_PLAIN) != after[name].get(one, _NOT_PLAIN)
    )


def unlike_built(module: Any) -> set[str]:
    """The parts of a transformers module that are not as its class makes them of its configuration: edited, or exchanged."""
    mine = parts_of(module)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            fresh = parts_of(type(module)(copy.deepcopy(module.config)))
    except Exception:  # noqa: BLE001 (a person's own class may ask for anything; then nothing shows how it is built)
        return set(mine)
    return {name for name, part in mine.items() if fresh.get(name) != part}


def _described(part: nn.Module) -> dict[str, Any]:
    if home(part) == "transformers" and hasattr(part, "config_class"):  # it notes more about itself than it runs by
        return {"class": _class(part)}
    return (
        {"class": _class(part)}
        | code_of(type(part))
        | dict(_attributes(part))
        | _edited_tables(part)
        | _own_values(part)
    )


def _own_values(part: nn.Module) -> dict[str, Any]:
    """Of a part of a person's own class: tensors that it keeps beside its weights, and options held together in an object."""
    if home(part) in KNOWN:
        return {}
    unsaved = {name: getattr(part, name) for name in part._non_persistent_buffers_set}
    told = {name: _told_of(value) for name, value in (vars(part) | unsaved).items()}
    return {f"{name} holds": value for name, value in told.items() if value}


def _told_of(value: Any) -> Any:
    if type(value) is Tensor and value.is_leaf and value.layout is torch.strided and value.device.type != "meta":
        numbers = value.detach().cpu().contiguous()
        return [str(value.dtype), *value.shape, _of_bytes(numbers.flatten().view(torch.uint8).numpy())]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return [str(value.dtype), *value.shape, _of_bytes(np.ascontiguousarray(value))]
    if isinstance(value, types.SimpleNamespace) or (dataclasses.is_dataclass(value) and home(value) not in KNOWN):
        return _plain(vars(value)) if hasattr(value, "__dict__") else None
    return None


def _of_bytes(numbers: np.ndarray) -> str:
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:8]


def _edited_tables(part: Any) -> dict[str, Any]:
    """Of a transformers part without weights: the tables that it computes of its configuration, such as a rotation's
    frequencies, where they are other ones. They are no weights, as they are not saved.
    """
    tables = {
        name: table for name, table in part.named_buffers(recurse=False) if name in part._non_persistent_buffers_set
    }
    here = {name: table for name, table in tables.items() if table.is_floating_point() and table.device.type != "meta"}
    if not here or home(part) != "transformers" or next(part.parameters(), None) is not None or _follows_input(part):
        return {}
    try:
        with torch.device("cpu"):
            fresh = dict(type(part)(part.config).named_buffers())
    except Exception:  # noqa: BLE001 (it is made of something else than its configuration)
        return {}
    edited = {name: table.cpu() for name, table in here.items() if not _equal(table.cpu(), fresh.get(name))}
    return {"tables": {name: digest(repr(table.tolist())) for name, table in edited.items()}} if edited else {}


def _follows_input(part: Any) -> bool:
    """Whether it is a rotation that a pass changes, by the length of its input."""
    kinds = getattr(part, "rope_type", "")
    return not {"dynamic", "longrope"}.isdisjoint(kinds.values() if isinstance(kinds, dict) else [kinds])


def _equal(table: Tensor, fresh: Tensor | None) -> bool:
    """Whether two tables are the same but for rounding to the type of the first, and for another device's."""
    if fresh is None or fresh.shape != table.shape:
        return False
    return torch.allclose(table.double(), fresh.to(table.dtype).double(), rtol=8 * torch.finfo(table.dtype).eps, atol=0)


def _class(part: nn.Module) -> str:
    return type(part).__qualname__


def settings_by(config: Any, class_name: str) -> Settings:
    """The settings of the module that transformers makes of a configuration."""
    return _settings(class_name, _told(config), {})


def as_text(settings: Settings) -> str:
    """Settings as JSON, equal where they are."""
    return json.dumps(settings, sort_keys=True)


def digest(text: str) -> str:
    """Eight characters for settings as JSON."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _settings(class_name: str, config: dict, parts: dict) -> Settings:
    return {"class": class_name, "config": config, "parts": parts}


def _told(config: Any) -> dict[str, Any]:
    """What a configuration, and those inside it, say other than the defaults of their classes."""
    inside = {name: one for name, one in vars(config).items() if hasattr(one, "to_dict") and hasattr(one, "model_type")}
    mine = {name: value for name, value in config.to_dict().items() if name not in inside}
    kind: Any = type(config)
    usual = _defaults(kind)
    told = {name: value for name, value in _plain(mine).items() if value != usual.get(name)}
    return {"model_type": getattr(config, "model_type", "")} | told | {name: _told(one) for name, one in inside.items()}


@functools.cache
def _defaults(kind: Any) -> dict[str, Any]:
    """What a configuration's class says by itself; nothing where it needs to be told something."""
    try:
        return _plain(kind().to_dict())
    except Exception:  # noqa: BLE001 (a class may ask for anything, and then all its fields count)
        return {}


def _attributes(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """The plain attributes of a part, such as a scale, a number of heads or the name of a way of pooling."""
    for name, value in tuple(vars(part).items()):  # another thread may be running it
        if name in _PASSING_OF_PARTS or value is None or name.endswith(_NOTED):
            continue
        if name == "forward" and (hasattr(part, "_hf_hook") or home(value) == "ablation_core"):
            continue  # accelerate's way around it, or the engine's for the length of a pass
        plain = own_name(value) if name == "forward" and home(value) not in KNOWN else _plain(value)
        if plain is not _NOT_PLAIN:
            yield name, plain


def _plain(value: Any) -> Any:
    """A value as JSON has it, without what changes no pass; `_NOT_PLAIN` of other objects, which show in no container."""
    if isinstance(value, float) and value.is_integer():
        return int(value)  # JSON files have 10000 and 10000.0 for the same
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return _plain(value.item())
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, str):
        return str(value)  # an enumeration's member too
    if isinstance(value, dict):
        pairs = ((str(name), _plain(one)) for name, one in value.items() if name not in _PASSING)
        return {name: one for name, one in pairs if one is not _NOT_PLAIN}
    if isinstance(value, list | tuple):
        return [one for one in map(_plain, value) if one is not _NOT_PLAIN]
    if isinstance(value, set | frozenset):
        return sorted((one for one in map(_plain, value) if one is not _NOT_PLAIN), key=str)
    if isinstance(value, functools.partial):
        return [_plain(value.func), _plain(value.args), _plain(value.keywords)]
    if isinstance(value, nn.Module):
        return _NOT_PLAIN
    name = getattr(value, "__qualname__", None)  # functions and classes
    return name if isinstance(name, str) else _NOT_PLAIN
