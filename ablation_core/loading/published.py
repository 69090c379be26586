"""Whether a model runs by the settings of one that comes with the project: then its weights alone tell it apart.

Statistics, runs and kept files of these models come with the project too, named by fingerprints. The settings are compared as
the installed libraries read them from the models' own configurations, so that no release of a library orphans these files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from ablation_core import bundled
from ablation_core.loading.images.pixels import timm_reader
from ablation_core.loading.packaged import PACKAGED
from ablation_core.models.reading import TOLD_OF_TEXTS, told_of_images, told_of_texts
from ablation_core.models.settings import Settings, settings_by, settings_of


def is_published(settings: Settings) -> bool:
    """Whether a module's settings are those of a bundled or fetched model.

    One that was taken from memory may have no tokenizer, and then reads no text otherwise.
    """
    return any(settings == _as_far(settings, one) for one in _bundled(settings)) or any(
        _but_for_tokens(settings) == _but_for_tokens(_as_far(settings, _fetched(name)))
        for name in _of_its_kind(settings)
    )


def _as_far(settings: Settings, known: Settings) -> Settings:
    """Known settings without what the others do not tell of how texts are read."""
    return {name: value for name, value in known.items() if name in settings or name not in TOLD_OF_TEXTS}


def _bundled(settings: Settings) -> Iterator[Settings]:
    """The settings of the bundled models of its family."""
    family = settings["config"].get("model_type", settings["class"])
    return (_of_bundled(name) for name in bundled.NAMES if bundled.CARDS[name].family == family)


def _of_its_kind(settings: Settings) -> list[str]:
    """The fetched models of its family."""
    return [
        name for name, model in PACKAGED.items() if model.settings["model_type"] == settings["config"].get("model_type")
    ]


@functools.cache
def _of_bundled(name: str) -> Settings:
    folder = bundled.FOLDER / name
    if bundled.CARDS[name].modality == "vision":
        import timm
        import torch

        with torch.random.fork_rng(devices=[]):  # what is drawn all the same is to change nothing
            module = timm.create_model(f"local-dir:{folder}", pretrained=False, weight_init="skip")
        return settings_of(module) | told_of_images(timm_reader(name, module)[0])
    from transformers import AutoConfig, AutoTokenizer

    place: dict[str, Any] = {
        "pretrained_model_name_or_path": folder, "local_files_only": True, "trust_remote_code": False,
    }  # fmt: skip
    config = AutoConfig.from_pretrained(**place)
    return settings_by(config, config.architectures[0]) | told_of_texts(AutoTokenizer.from_pretrained(**place))


@functools.cache
def _fetched(name: str) -> Settings:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    known = PACKAGED[name].settings
    return settings_by(AutoConfig.for_model(**known), NAMES[known["model_type"]]) | {"tokens": PACKAGED[name].tokens}


def _but_for_tokens(settings: Settings) -> Settings:
    """Settings without special tokens, which change no pass of the fetched models.

    The releases of transformers that write their folder take different ones over from the GGUF file.
    """
    told = {name: value for name, value in settings["config"].items() if not name.endswith("_token_id")}
    return {name: value for name, value in settings.items() if name != "special tokens"} | {"config": told}
