"""The bundled models' weights, read straight into the modules that saved them.

transformers' own reading first compiles the patterns by which the weights of all its families are renamed, a thousand
regular expressions and a second of processor time, and then finds nothing to rename in these files.
"""

from pathlib import Path
from typing import Any

import torch

from ablation_core.errors import ModelError

WEIGHTS = "model.safetensors"


def read_bundled(source: str, loader: Any, config: Any, dtype: torch.dtype) -> Any:
    """The module that `loader.from_pretrained` gives for a bundled model's folder, to the bit.

    Args:
        loader: transformers' class that makes the module from its configuration.

    Raises:
        ModelError: the file's tensors are not exactly the module's.
    """
    from safetensors.torch import load_file

    with torch.random.fork_rng(devices=[]):  # the first weights are random, and drawing them is to change nothing
        module = loader.from_config(config, dtype=dtype)
    saved = load_file(Path(source) / WEIGHTS)
    fit = module.load_state_dict(saved, strict=False)
    tied = set(module.all_tied_weights_keys or ())
    if fit.unexpected_keys or set(fit.missing_keys) - tied:
        raise ModelError(f"The file {Path(source) / WEIGHTS} was changed: its tensors are not those of this model.")
    return module
