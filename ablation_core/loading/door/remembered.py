"""What the checks at the door found, remembered per model in the cache folder, so that each model is tried once.

    cached_stats/door/<weights>-<circumstances>.json

Remembered is where a model's heads lie and what was seen when it ran. It is believed only of the same weights under the
same circumstances: the settings, the type of the weights, the device, the versions of torch, transformers and timm,
and the version of these checks. Only what passed is remembered, and only of models from files: a module in memory may be
anything. A file that cannot be read, or does not fit the model, is as good as none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from ablation_core.loading.door.length import longest_input
from ablation_core.loading.door.verification import verify
from ablation_core.models.architectures import Architecture, input_width, shape_of
from ablation_core.models.info import Modality
from ablation_core.models.loaded import LoadedModel, NoHeads
from ablation_core.models.settings import settings_of
from ablation_core.models.structure import Structure
from ablation_core.models.weights import weights_digest
from ablation_core.storage import NUMBER_OR_NULL, matches_schema, write_atomic

CHECKS = 5  # one more whenever a check at the door changes, so that all models are tried again
_MOST_BYTES = 1_000_000
_MOST_FILES = 500


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        blocks: the names of the blocks, in order.
        projections: inside each block, the name of its output projection; None where it has no heads.
        mixers: of those blocks, what they have instead; empty for others.
        heads: of each block.
        blocks_at, projection_at: the paths, as `Architecture` has them.
        special_positions, resumes, one_image, max_length, streams: as `LoadedModel` has them.
    """

    blocks: list[str]
    projections: list[str | None]
    mixers: list[str]
    heads: list[int]
    blocks_at: str
    projection_at: str
    special_positions: int | None
    resumes: bool
    one_image: bool
    max_length: int | None
    streams: int


_SCHEMA = {
    "blocks": [str], "projections": [(str, type(None))], "mixers": [str], "heads": [int], "blocks_at": str,
    "projection_at": str, "special_positions": NUMBER_OR_NULL, "resumes": bool, "one_image": bool, "max_length": NUMBER_OR_NULL,
    "streams": int,
}  # fmt: skip


@dataclass(frozen=True)
class DoorMemory:
    """Where one model's findings are remembered.

    Attributes:
        weights: their digest, made for this.
    """

    path: Path
    weights: str

    @classmethod
    def of(cls, module: nn.Module, modality: Modality, cache: Path) -> DoorMemory:
        """The place for a module that was read from files."""
        weights = weights_digest(module)
        circumstances = hashlib.sha256(json.dumps(_circumstances(module, modality), sort_keys=True).encode())
        return cls(cache / "door" / f"{weights}-{circumstances.hexdigest()[:16]}.json", weights)

    def recall(self) -> Checked | None:
        """What was found before; None where nothing usable is remembered."""
        try:
            if self.path.stat().st_size > _MOST_BYTES:
                return None
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not matches_schema(found, _SCHEMA) or set(found) != set(_SCHEMA):
            return None
        return Checked(**found)

    def keep(self, model: LoadedModel) -> None:
        """Remember what was found of a model that passed; where nothing can be written, nothing is."""
        names = {id(module): name for name, module in model.module.named_modules()}
        projections, mixers = [], []
        for block, projection in zip(model.blocks, model.projections, strict=True):
            none = isinstance(projection, NoHeads)
            own = {id(module): name for name, module in block.named_modules()}
            projections.append(None if none else own.get(id(projection)))
            mixers.append(projection.mixer if isinstance(projection, NoHeads) else "")
            if not none and projections[-1] is None:
                return
        found = Checked(
            [names[id(block)] for block in model.blocks],
            projections,
            mixers,
            list(model.shape.heads),
            model.architecture.blocks,
            model.architecture.projection,
            model.special_positions,
            model.resumes,
            model.one_image,
            model.max_length,
            model.streams,
        )
        try:
            write_atomic(self.path, json.dumps(asdict(found)).encode())
            _let_go(self.path.parent)
        except OSError:  # a shared server's folder may not be written to
            return


def _let_go(folder: Path) -> None:
    """Forget what was remembered longest ago, where that is much."""
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[:-_MOST_FILES]:
        path.unlink(missing_ok=True)


def rebuilt(
    found: Checked, module: nn.Module, family: str, modality: Modality, row: Architecture | None
) -> Structure | None:
    """Where the heads lie, from what is remembered; None where that does not fit the module."""
    try:
        blocks = [module.get_submodule(name) for name in found.blocks]
        projections: list[nn.Module] = [
            NoHeads(mixer) if name is None else block.get_submodule(name)
            for block, name, mixer in zip(blocks, found.projections, found.mixers, strict=True)
        ]
        widths = [input_width(projection) for projection in projections]
    except (AttributeError, ValueError, IndexError):
        return None
    if len(found.heads) != len(blocks) or any(
        (count < 1 or width % count) if width else count for width, count in zip(widths, found.heads, strict=True)
    ):
        return None
    architecture = row or Architecture(family, modality, found.blocks_at, found.projection_at, verified=False)
    return Structure(architecture, shape_of(tuple(found.heads), widths), blocks, projections, found.streams)


def pass_door(model: LoadedModel, memory: DoorMemory | None, known: Checked | None) -> None:
    """Verify a model and remember what was found; or take what is remembered of it.

    Raises:
        ModelError: it is not what it seems.
    """
    if known is not None:
        model.special_positions, model.max_length = known.special_positions, known.max_length
        model.resumes, model.one_image = known.resumes, known.one_image
        model.shortcuts = None if known.resumes else [None] * model.num_layers
    else:
        if model.modality != "vision":
            model.max_length = longest_input(model)
        verify(model)
        if memory is not None:
            memory.keep(model)
    if memory is not None:
        model.know_weights(memory.weights)


def _circumstances(module: Any, modality: str) -> dict[str, Any]:
    """All but the weights that decides how a model runs."""
    config = getattr(module, "config", None)
    first = next(module.parameters())
    return {
        "checks": CHECKS,
        "class": f"{type(module).__module__}.{type(module).__qualname__}",
        "modality": modality,
        "settings": settings_of(module),
        "attention": str(getattr(config, "_attn_implementation", "")),
        "dtype": str(first.dtype),
        "device": first.device.type,
        "versions": {name: _version(name) for name in ("torch", "transformers", "timm")},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
