"""A person's own prompt or image, made ready for the model, or refused with a sentence.

The input takes the place of a data set of one sequence, so that every method works on it as it does elsewhere; a
method that takes its values from other inputs gets windows of the same length, or images, of the chosen data set.
"""

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from ablation_core.data.dataset import IGNORED, Batch, Data
from ablation_core.data.images import eight_bit, opened_image
from ablation_core.data.load import load_data
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import check_known, encode_plain, padding_id, special_tokens, whole_text

NEW_TOKENS = 20
MOST_TOKENS = 256
MOST_PIXELS = 25_000_000
MOST_BYTES = 20_000_000
_GAP = re.compile(r"_{3,}|\[MASK\]|<mask>", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class UserInput:
    """An input ready to be run.

    Attributes:
        data: the input as sequence 0 of a data set, sources behind it. A prompt's scored predictions are its own tokens.
        asked: the same input with the targets marked that are asked for: the next token, the masks, or the class.
        notes: sentences about what was done to it.
    """

    data: Data
    asked: Batch
    notes: tuple[str, ...] = ()


def prompt(model: LoadedModel, text: str, data_ref: str, new_tokens: int = NEW_TOKENS) -> UserInput:
    """A typed text for a language model. In a masked one `___`, `[MASK]` or `<mask>` stands for a token to be filled in.

    Args:
        data_ref: where sources come from.
        new_tokens: how many tokens are going to be written behind it (causal models); sources are longer by that.

    Raises:
        DataError: nothing is written there, it is too long for the model, or a masked model has nothing to fill in.
    """
    masked = model.modality == "masked"
    if not text.strip():
        raise DataError("Nothing is written there yet: type a few words.")
    if masked:
        text = _GAP.sub(lambda _: model.tokenizer.mask_token, text)
    ids = torch.tensor([whole_text(model, text)], dtype=torch.long)
    check_known(model, int(ids.max()) if ids.numel() else 0)
    most = min(MOST_TOKENS, (model.max_length or MOST_TOKENS) - (0 if masked else new_tokens))
    if ids.shape[1] > most:
        raise DataError(f"That is {ids.shape[1]:,} tokens; {model.ref} takes at most {most} here. Shorten it.")
    asked = torch.full_like(ids, IGNORED)
    if masked:
        asked[ids == model.tokenizer.mask_token_id] = 0
        if bool((asked == IGNORED).all()):
            raise DataError("Write ___ (three underscores) where a word is to be filled in.")
        return UserInput(_among_sources(model, ids, asked, data_ref, 0), Batch(text_inputs(ids), asked))
    asked[:, -1] = 0  # any token: only the distribution is looked at
    following = torch.cat([ids[:, 1:], torch.full((1, 1), IGNORED)], dim=1)
    return UserInput(_among_sources(model, ids, following, data_ref, new_tokens), Batch(text_inputs(ids), asked))


def text(model: LoadedModel, typed: str, data_ref: str) -> UserInput:
    """A typed text for a text classifier.

    Args:
        data_ref: where sources come from.

    Raises:
        DataError: nothing is written there, or it is too long for the model.
    """
    if not typed.strip():
        raise DataError("Nothing is written there yet: type a text.")
    before, after = special_tokens(model)
    tokens, spelled = encode_plain(model, typed)
    ids = torch.tensor([[*before, *tokens, *after]], dtype=torch.long)
    check_known(model, int(ids.max()) if ids.numel() else 0)
    most = min(MOST_TOKENS, model.max_length or MOST_TOKENS)
    if not ids.numel() or ids.shape[1] > most:
        raise DataError(f"That is {ids.shape[1]:,} tokens; {model.ref} takes 1 to {most} here. Change its length.")
    others = load_data(data_ref, model, predictions=2, seq_len=most)
    length, filler = max(ids.shape[1], others.length), padding_id(model)

    def filled(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        missing = length - inputs["input_ids"].shape[1]
        pad = torch.nn.functional.pad
        return {
            "input_ids": pad(inputs["input_ids"], (0, missing), value=filler),
            "attention_mask": pad(inputs["attention_mask"], (0, missing)),
        }

    def rows(numbers: Sequence[int]) -> Batch:
        parts = [filled(text_inputs(ids) if n == 0 else others.rows([n - 1]).inputs) for n in numbers]
        inputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return Batch(inputs, torch.zeros(len(parts), dtype=torch.long))

    fingerprint = hashlib.sha256(ids.numpy().tobytes()).hexdigest()[:16]
    data = replace(_own_data(others, fingerprint, 1, rows), seq_len=length)
    notes = ("Special tokens that it spells were read as the letters they are written with.",) if spelled else ()
    return UserInput(data, Batch(text_inputs(ids), torch.zeros(1, dtype=torch.long)), notes)


def image(model: LoadedModel, content: bytes, data_ref: str) -> UserInput:
    """An uploaded image for a classifier.

    Raises:
        DataError: it is no image, or one that is not taken here; the sentence says why.
    """
    picture, notes = read_image(content)
    pixels = model.to_pixels(picture)[None]
    others = load_data(data_ref, model, predictions=2)

    def rows(numbers: Sequence[int]) -> Batch:
        parts = [pixels if number == 0 else others.rows([number - 1]).inputs[model.input_name] for number in numbers]
        return Batch({model.input_name: torch.cat(parts)}, torch.zeros(len(parts), dtype=torch.long))

    fingerprint = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()[:16]
    return UserInput(_own_data(others, fingerprint, 1, rows), rows([0]), notes)


def read_image(content: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode an uploaded image to 8-bit grey or RGB, upright; with sentences about what was changed.

    Raises:
        DataError: it is empty, too large, damaged, animated, or no image.
    """
    if not content:
        raise DataError("The file is empty; an image is needed.")
    if len(content) > MOST_BYTES:
        raise DataError(f"The file has {len(content) / 1e6:.0f} MB; at most {MOST_BYTES // 1_000_000} MB are taken.")
    with opened_image(io.BytesIO(content), "The file", MOST_PIXELS) as opened:
        if (
            opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1
        ):  # MPO: a camera's JPEG with its preview behind it
            raise DataError("The image is animated or has several pages; upload a single picture.")
        notes = []
        if opened.mode.startswith(("I", "F")):
            notes.append("Its deeper pixels were scaled to 8 bits.")
        if opened.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            notes.append(f"Its {opened.mode} colours were converted to RGB.")
        if opened.has_transparency_data:
            notes.append("Its transparent parts were laid on white.")
        return eight_bit(opened), tuple(notes)


def _among_sources(model: LoadedModel, ids: Tensor, targets: Tensor, data_ref: str, new_tokens: int) -> Data:
    """The prompt as sequence 0, filled up to the sources' length with positions that are not scored."""
    length = ids.shape[1]
    others = load_data(data_ref, model, predictions=1, seq_len=length + new_tokens)
    batch = others.rows([0])
    full, wanted = batch.inputs["input_ids"].clone(), torch.full_like(batch.targets, IGNORED)
    full[:, :length], wanted[:, :length] = ids, targets

    def rows(numbers: Sequence[int]) -> Batch:
        parts = [(full, wanted) if number == 0 else _row(others, number - 1) for number in numbers]
        return Batch(text_inputs(torch.cat([part[0] for part in parts])), torch.cat([part[1] for part in parts]))

    fingerprint = hashlib.sha256(full.numpy().tobytes() + wanted.numpy().tobytes()).hexdigest()[:16]
    return _own_data(others, fingerprint, int((wanted != IGNORED).sum()), rows)


def _row(data: Data, number: int) -> tuple[Tensor, Tensor]:
    batch = data.rows([number])
    return batch.inputs["input_ids"], batch.targets


def _own_data(others: Data, fingerprint: str, predictions: int, rows: Callable[[Sequence[int]], Batch]) -> Data:
    return replace(
        others,
        ref="your own input",
        batch_size=1,
        sequences=1,
        pool=others.pool + 1,
        predictions=predictions,
        fingerprint=fingerprint,
        notes=(),
        rows=rows,
    )


def text_inputs(ids: Tensor) -> dict[str, Tensor]:
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
