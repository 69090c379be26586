"""`LoadedModel`: a module with what is needed to feed it, hook it and tell it apart. `loading.py` makes them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from ablation_core.errors import ModelError
from ablation_core.models.architectures import Architecture, find_projections, find_shape, input_width
from ablation_core.models.info import Modality, ModelInfo, predicts_class
from ablation_core.models.reading import told_of_images, told_of_texts
from ablation_core.models.settings import Noted, Parts, Settings, as_text, digest, settings_of
from ablation_core.models.weights import weight_sums, weights_digest
from ablation_core.selection import ModelShape


class Lock(Protocol):
    """A re-entrant lock: a plain one, or the fair one that a server installs (`server/turns.py`)."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *_: Any) -> Any: ...


class NoHeads(nn.Module):
    """Stands in the place of an output projection in a layer that has no attention heads; it never runs.

    Attributes:
        mixer: the class of what the layer has instead.
    """

    in_features = 0

    def __init__(self, mixer: str) -> None:
        super().__init__()
        self.mixer = mixer


def _reads_no_images(_image: Image.Image) -> Tensor:
    raise ModelError("This model reads text, not images.")


@dataclass(eq=False)
class LoadedModel:
    """A model ready to be ablated. It is left as it was found: hooks live only inside the engine's `with` blocks.

    Attributes:
        ref: the reference it was loaded by.
        shape: layers, heads and neurons per head.
        blocks, projections: the transformer blocks, and the attention output projection of each.
        tokenizer: for text models.
        to_pixels: for vision models, a PIL image → float (channels, height, width), normalised.
        labels: for classifiers of images or texts, the name of each class.
        max_length: for text models, the longest input it has positions for.
        special_positions: how many first positions hold no part of the input (class token, registers), as seen when it
            ran; None where that was not tried.
        resumes: whether a pass may begin at any block; not where later blocks read what earlier ones left elsewhere.
        takes_prefix, takes_columns: whether a pass may begin in the middle of a sequence, and of each sequence elsewhere; None
            until it is tried (`prefix.py`).
        streams: how many residual streams its blocks hand on, (streams, batch, position, width); the engine has them side by side.
        one_image: whether what follows some blocks needs no more than one image of a batch, as it goes by the blocks' outputs
            alone; not where it asks the input for its size.
        lock: hold it while hooks are on; several sessions may share the model.
        shortcuts: each layer's way past its attention, if it has one; found at the first clean pass (`shortcuts.py`).
        special_tokens: what its tokenizer puts before and after a text; found when first asked for (`tokenizer.py`).
        cache: the cache folder it was loaded with; None of a module that was in memory, of which nothing is kept.
        may_change: whether its weights and settings may be edited while it is here, so that they are looked at again; a
            server, which keeps its models to itself, says no.
        published: whether settings are those of a model that comes with the project (`loading/published.py`): they are
            left out of its fingerprint, so that files of any release fit.
        built: its parts as they were built; others were edited, or put in their places (`settings.py`).
        noted: what a person's own parts note about their passes, which is no setting (`settings.py`).
    """

    ref: str
    module: nn.Module
    architecture: Architecture
    shape: ModelShape
    blocks: list[nn.Module]
    projections: list[nn.Module]
    tokenizer: Any = None
    to_pixels: Callable[[Image.Image], Tensor] = _reads_no_images
    labels: tuple[str, ...] = ()
    max_length: int | None = None
    lock: Lock = field(default_factory=threading.RLock, repr=False)
    shortcuts: list[Any] | None = field(default=None, repr=False)
    special_tokens: tuple[tuple[int, ...], tuple[int, ...]] | None = field(default=None, repr=False)
    cache: Path | None = None
    may_change: bool = True
    published: Callable[[Settings], bool] = field(default=lambda _settings: False, repr=False)
    built: Parts | None = field(default=None, repr=False)
    noted: Noted = field(default=frozenset(), repr=False)
    _known: tuple[bytes, str] | None = field(default=None, repr=False)  # sums of the weights, and their digest
    _images: tuple[Callable, Settings] | None = field(default=None, repr=False)  # `to_pixels`, and what it tells
    _run_by: tuple[str, str] | None = field(default=None, repr=False)  # settings, and what they add to the fingerprint
    special_positions: int | None = None
    resumes: bool = True
    takes_prefix: bool | None = None
    takes_columns: bool | None = None
    one_image: bool = True
    streams: int = 1

    @property
    def family(self) -> str:
        return self.architecture.family

    @property
    def modality(self) -> Modality:
        return self.architecture.modality

    @property
    def predicts_class(self) -> bool:
        """Whether it makes one prediction per input, a class, and not one per token."""
        return predicts_class(self.modality)

    @property
    def verified(self) -> bool:
        """Whether the conformance test runs its family."""
        return self.architecture.verified

    @property
    def excluded_positions(self) -> int:
        """How many first positions hold BOS, CLS, registers or the like, which statistics leave out."""
        if self.special_positions is not None:
            return self.special_positions
        prefix = getattr(self.module, "num_prefix_tokens", 1)  # timm's transformers may have none
        return int(prefix) if self.architecture.first_is_special else 0

    @property
    def info(self) -> ModelInfo:
        """What tells it apart."""
        known = (self.ref, self.family, self.modality, self.shape)
        return ModelInfo(*known, self.fingerprint, self.dtype, self.verified, self.excluded_positions)

    @property
    def config(self) -> Any:
        """What transformers keeps of a model beside its weights; its fields depend on the family."""
        return self.module.config

    @property
    def vocabulary(self) -> int:
        """How many tokens a language model chooses from."""
        config = self.config
        return int((config.get_text_config() if hasattr(config, "get_text_config") else config).vocab_size)

    @property
    def classes(self) -> int:
        """How many classes or tokens a prediction chooses from."""
        return len(self.labels) if self.predicts_class else self.vocabulary

    @property
    def num_layers(self) -> int:
        return self.shape.layers

    @property
    def num_heads(self) -> int | tuple[int, ...]:
        """One number, or one per layer where layers differ."""
        return self.shape.heads[0] if len(set(self.shape.heads)) == 1 else self.shape.heads

    @property
    def head_dim(self) -> int:
        return self.shape.head_dim

    def without_heads(self, layer: int) -> str:
        """Why a layer has no attention heads, as a sentence; empty where it has some."""
        projection = self.projections[layer]
        if not isinstance(projection, NoHeads):
            return ""
        return f"Layer {layer} has no attention heads: it mixes positions by {projection.mixer}."

    def check_gradients(self) -> None:
        """Refuse a module of whose weights no gradient can be sent back through.

        Raises:
            ModelError: they were made in inference mode.
        """
        if any(weight.is_inference() for weight in self.module.parameters()):
            raise ModelError(
                f"The weights of {self.ref} were made under torch.inference_mode(), so that there are no gradients; "
                f"make or load the module outside of it. Ablations need none."
            )

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the first weights that are on one."""
        places = (weight.device for weight in self.module.parameters())
        return next((place for place in places if place.type != "meta"), torch.device("cpu"))

    @property
    def dtype(self) -> str:
        return str(next(self.module.parameters()).dtype).removeprefix("torch.")

    @property
    def input_name(self) -> str:
        """The module's argument for images."""
        return "pixel_values" if hasattr(self.module, "config") else "x"

    @property
    def fingerprint(self) -> str:
        """What tells its numbers from another model's: a digest of every weight, and one of the settings that it runs by.

        The weights' covers name, shape, type and bytes. That of the settings, such as the activation function
        (`settings.py`) and the tokenizer (`reading.py`), follows behind a hyphen; it is left out where they are those of
        a model that comes with the project.

        Both are kept, and made again where something was edited meanwhile. For that the weights' sums are compared each
        time, which takes about as long as reading them once.
        """
        if self.may_change or self._known is None:
            self._look_at_weights()
        if self.may_change or self._run_by is None:
            self._look_at_settings()
        assert self._known is not None and self._run_by is not None
        return self._known[1] + self._run_by[1]

    def _look_at_weights(self) -> None:
        sums = weight_sums(self.module)
        if self._known is None or self._known[0] != sums:
            self._known = sums, weights_digest(self.module)
            self._forget_trials()

    def _look_at_settings(self) -> None:
        if self._images is None or self._images[0] is not self.to_pixels:
            self._images = self.to_pixels, told_of_images(self.to_pixels)
        settings = settings_of(self.module, self.built, self.noted) | told_of_texts(self.tokenizer) | self._images[1]
        text = as_text(settings)
        if self._run_by is None or self._run_by[0] != text:
            if self._run_by is not None:
                self._forget_trials()
            self._run_by = text, "" if self.published(settings) else f"-{digest(text)}"

    def _forget_trials(self) -> None:
        """What was tried on the model holds for the weights and settings that it was tried with."""
        self.takes_prefix = self.takes_columns = None
        self.shortcuts = None

    def know_weights(self, weights: str) -> None:
        """Take the digest of the weights as they are now, made elsewhere (`weights_digest`)."""
        self._known = weight_sums(self.module), weights


def wrap(ref: str, module: nn.Module, architecture: Architecture) -> LoadedModel:
    """A `LoadedModel` of a module, still without tokenizer or image transform."""
    blocks, projections = find_projections(architecture, module)
    shape = find_shape(architecture, module, blocks, [input_width(projection) for projection in projections])
    return LoadedModel(ref, module, architecture, shape, blocks, projections)
