"""From a module that can be run to where its heads lie: a family's row says where to look, running it says what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ablation_core.errors import ModelError
from ablation_core.models.architectures import (
    ARCHITECTURES,
    REFUSED,
    Architecture,
    find_projections,
    find_shape,
    input_width,
    shape_of,
)
from ablation_core.models.attention_calls import AttentionInOneFunction, Run
from ablation_core.models.block_search import find_blocks, handed_on
from ablation_core.models.failures import cannot_run, check_finite
from ablation_core.models.head_watch import Layer, watch_heads
from ablation_core.models.info import Modality
from ablation_core.models.loaded import NoHeads
from ablation_core.selection import ModelShape

_SUFFIXES: tuple[tuple[str, Modality], ...] = (
    ("ForCausalLM", "causal"),
    ("LMHeadModel", "causal"),
    ("ForConditionalGeneration", "causal"),
    ("ForMaskedLM", "masked"),
    ("ForPreTraining", "masked"),
    ("ForSequenceClassification", "text-classification"),
    ("ForImageClassification", "vision"),
    ("ForImageClassificationWithTeacher", "vision"),
)
# Named otherwise than what they are: a class and what it predicts.
_NAMED: dict[str, Modality] = {
    "BertGenerationDecoder": "causal",
    "FlaubertWithLMHeadModel": "masked",
    "XLMWithLMHeadModel": "masked",
}


@dataclass(frozen=True)
class Structure:
    """Where a model's heads lie.

    Attributes:
        blocks, projections: one projection per block; a `NoHeads` where a block has no attention heads.
        streams: how many residual streams each block hands on.
    """

    architecture: Architecture
    shape: ModelShape
    blocks: list[nn.Module]
    projections: list[nn.Module]
    streams: int = 1


def known_architecture(family: str, is_encoder_decoder: bool = False) -> Architecture | None:
    """The family's row, or None where it has none.

    Raises:
        ModelError: the family cannot work.
    """
    if family in REFUSED:
        raise ModelError(f"Models of the family {family} cannot be ablated here: {REFUSED[family]}.")
    if is_encoder_decoder:
        raise ModelError(
            f"{family} is an encoder-decoder; only models with one row of blocks can be ablated here. Its decoder, "
            f"saved by itself as a causal language model, would be."
        )
    return ARCHITECTURES.get(family)


def modality_of(class_names: list[str], family: str) -> Modality:
    """What a model predicts, from the class names that its configuration gives.

    Raises:
        ModelError: they do not tell, or it was saved for a task that is not measured here.
    """
    if found := next((task for name in class_names if (task := task_of(name))), None):
        return found
    row = ARCHITECTURES.get(family)
    if row is not None and all(is_headless(name) for name in class_names):
        return row.modality
    if class_names:
        raise ModelError(
            f"This {family} model was saved as {', '.join(class_names)}, which is neither a causal or masked language "
            f"model nor a classifier of texts or images: measured as one of them, it would be measured with a head that it was not "
            f"saved with. Save the model together with its predicting head."
        )
    raise ModelError(
        f"The family {family} is not known, and its configuration (no class named) does "
        f"not say that it is a causal or masked language model or a classifier of texts or images. {supported()}"
    )


def task_of(class_name: str) -> Modality | None:
    """What models of a class predict, as its name has it; None where it is nothing that is measured here."""
    named = next((modality for suffix, modality in _SUFFIXES if class_name.endswith(suffix)), None)
    return _NAMED.get(class_name, named)


def reads_images_too(class_name: str) -> bool:
    """Whether a class writes text that follows images or sounds, too: asked with text alone it is a causal language model.

    Encoder-decoders are called so, too; they are refused before (`known_architecture`).
    """
    return class_name.endswith("ForConditionalGeneration")


def is_headless(class_name: str) -> bool:
    """Whether a class is a family's bare model, without a head that predicts anything."""
    return class_name.endswith("Model") and not class_name.endswith(("LMHeadModel", "DoubleHeadsModel"))


def supported() -> str:
    return f"Families with a row: {', '.join(sorted(ARCHITECTURES))}."


def find_structure(
    module: nn.Module, family: str, modality: Modality, row: Architecture | None, inputs: Mapping[str, Tensor], run: Run
) -> Structure:
    """Where the heads of a model lie, shown by running it.

    Args:
        row: the family's; without one the blocks are looked for.
        inputs: one row of a tiny batch.
        run: runs the module on such a batch.

    Raises:
        ModelError: it has no attention heads that can be ablated, or other ones than its row says; with what was found.
    """
    if row is None:
        blocks_at, names = _blocks_of(module, family, inputs, run)
    else:
        expected, projections = find_projections(row, module)
        of = {id(child): name for name, child in module.named_modules()}
        blocks_at, names = row.blocks, tuple(of[id(block)] for block in expected)
    try:
        layers = watch_heads(module, names, inputs, run)
    except AttentionInOneFunction as error:
        raise ModelError(error.about(family)) from error
    except ModelError as error:
        if all(name.rpartition(".")[2].isdigit() for name in names):
            raise
        raise ModelError(
            f"Each block of this {family} model computes attention in several places ({blocks_at}), which are no blocks of "
            f"their own: only blocks with one attention can be ablated here."
        ) from error
    except Exception as error:
        raise cannot_run(family, inputs, run, error) from error
    if any(not layer.reader for layer in layers):
        check_finite(module, family, inputs, run)
    blocks = [module.get_submodule(name) for name in names]
    bare = next(
        (name for name, layer in zip(names, layers, strict=True) if layer.reader and "." not in layer.reader), ""
    )
    if bare and not handed_on(module, names, lambda: run(inputs)):
        raise ModelError(
            f"The attention of this {family} model ({bare}) stands in no block of its own: what comes between two layers of "
            f"attention lies elsewhere, so that the model cannot be resumed behind a head."
        )
    for number, layer in enumerate(layers):
        _check_runs(family, number, layer)
    if row is not None:
        declared = find_shape(row, module, blocks, [input_width(projection) for projection in projections])
        for number, (layer, block, projection) in enumerate(zip(layers, blocks, projections, strict=True)):
            if not layer.reader or block.get_submodule(layer.reader) is not projection:
                raise ModelError(
                    f"Layer {number} of this {family} model is built otherwise than its family: its heads are read by "
                    f"{layer.reader or 'nothing that was seen'}, and {row.projection} was expected."
                )
            _check_layer(family, number, layer, block)
        heads = tuple(layer.slices for layer in layers)
        if heads != declared.heads:
            raise ModelError(
                f"This {family} model has {_some(heads)} heads per layer when it runs, and its configuration says "
                f"{_some(declared.heads)}."
            )
        return Structure(row, declared, blocks, projections)
    if not any(layer.heads for layer in layers):
        raise ModelError(f"No softmax attention was seen in the blocks of this {family} model: it has no heads.")
    found: list[nn.Module] = []
    for number, (layer, block) in enumerate(zip(layers, blocks, strict=True)):
        if layer.heads:
            _check_layer(family, number, layer, block)
            found.append(block.get_submodule(layer.reader))
        else:
            found.append(NoHeads(layer.mixer))
    streams = {layer.streams for layer in layers}
    if len(streams) > 1:
        raise ModelError(f"The blocks of this {family} model hand on different numbers of residual streams.")
    weights = [id(one.weight) for one in found if not isinstance(one, NoHeads)]  # modules may differ, and share them
    if len(set(weights)) < len(weights):
        raise ModelError(
            f"Layers of this {family} model share their attention's weights, so that a layer's head cannot be ablated by "
            f"itself."
        )
    readers = dict.fromkeys(layer.reader for layer in layers if layer.heads)
    slices = tuple(layer.slices if layer.heads else 0 for layer in layers)
    architecture = Architecture(family, modality, blocks_at, " or ".join(readers), verified=False)
    return Structure(architecture, shape_of(slices, [input_width(one) for one in found]), blocks, found, *streams)


def _some(heads: tuple[int, ...]) -> str:
    return ", ".join(map(str, heads)) if len(set(heads)) > 1 else str(heads[0])


def _blocks_of(module: nn.Module, family: str, inputs: Mapping[str, Tensor], run: Run) -> tuple[str, tuple[str, ...]]:
    try:
        seen = find_blocks(module, lambda: run(inputs))
    except AttentionInOneFunction as error:
        raise ModelError(error.about(family)) from error
    except ModelError:
        raise
    except Exception as error:
        raise cannot_run(family, inputs, run, error) from error
    if not seen.paths:
        raise ModelError(
            f"No softmax attention was seen while this {family} model ran, inside a list of blocks: there is no "
            f"attention head to ablate."
        )
    if len(seen.paths) > 1:
        raise ModelError(
            f"The attention of this {family} model lies in several lists of blocks ({', '.join(seen.paths)}); only "
            f"models with one row of blocks can be ablated here."
        )
    return seen.paths[0], seen.names


def _check_runs(family: str, number: int, layer: Layer) -> None:
    if layer.others:
        raise ModelError(
            f"Layer {number} of this {family} model computes attention in several places: {layer.reader} reads the heads of one, "
            f"{' and '.join(layer.others)} those of another; only blocks with one attention can be ablated here."
        )
    if layer.runs != 1:
        raise ModelError(
            f"Layer {number} of this {family} model runs {layer.runs} times in a pass, so that a head of it cannot be "
            f"ablated in one place."
        )


def _check_layer(family: str, number: int, layer: Layer, block: nn.Module) -> None:
    """Refuse a layer whose heads are not read, as equal independent slices, by one linear map to the residual stream."""
    where = f"Layer {number} of this {family} model"
    if not layer.reader:
        raise ModelError(
            f"{where} computes {layer.heads} attention heads, but no linear map that reads them was found (a convolution may): "
            f"it cannot be hooked there."
        )
    reader = block.get_submodule(layer.reader)
    if layer.reader_runs != 1:
        raise ModelError(f"{where} calls {layer.reader}, which reads its heads, {layer.reader_runs} times in a pass.")
    if not layer.slices or input_width(reader) % layer.slices:
        raise ModelError(
            f"{where} computes {layer.heads} attention heads, but they are not independent slices of the "
            f"{input_width(reader)} values that {layer.reader} reads: one head cannot be ablated there by itself."
        )
