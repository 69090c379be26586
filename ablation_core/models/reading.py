"""How inputs become numbers, as far as a sample tells: a tokenizer's ids of a few texts, a transform's pixels of an image.

    told_of_texts(tokenizer)   # {"tokens": "0c1d9a7e42bb", "special tokens": [0, 1, 2]}

Both are settings that a model runs by (`settings.py`): statistics of the same weights differ where inputs are read otherwise.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

TOLD_OF_TEXTS = ("tokens", "special tokens")
# What tokenizers of equal vocabularies treat otherwise: case, accents, digits, white space, punctuation, scripts, merges.
_TEXTS = (
    "The quick brown fox jumps over the lazy dog; PACK MY BOX with five dozen liquor jugs!",
    " 0123456789 3.14159 1,000,000 12:30 don't well-known e-mail@example.org",
    "def area(x):\n    return {'a': x[0] ** 2} if x else None  # snake_case, camelCase\n\n\tend  ",
    "unhappily internationalisation reconsidered misunderstandings electroencephalography",
    "naïve café ÜBER “quotes” … Ελληνικά русский 中文 日本語 한국어 العربية हिन्दी 🙂",
)


def told_of_texts(tokenizer: Any) -> dict[str, Any]:
    """How texts become ids: a digest of the vocabulary and of some texts' ids, and the special tokens; nothing of None.

    >>> told_of_texts(None)
    {}
    """
    if tokenizer is None:
        return {}
    told = hashlib.sha256(_vocabulary(tokenizer, len(tokenizer)))
    for text in _TEXTS:
        told.update(repr(_ids(tokenizer, text)).encode())
    return {
        "tokens": told.hexdigest()[:12],
        "special tokens": [*sorted(tokenizer.all_special_ids), tokenizer.mask_token_id],
    }


def told_of_images(to_pixels: Callable[[Image.Image], Tensor]) -> dict[str, Any]:
    """How images become pixels, as far as one image tells: the shape, the mean and the spread; nothing where none can be read.

    With two decimals, since releases of libraries resize alike but for rounding. What draws at random tells nothing.
    """
    rising = Image.linear_gradient("L")
    image = Image.merge("RGB", (rising, rising.rotate(90), rising.rotate(180)))
    try:
        pixels, again = (to_pixels(image).float() for _ in range(2))
    except Exception:  # noqa: BLE001 (a text model reads none, and a person's own function may ask for anything)
        return {}
    if not torch.equal(pixels, again):
        return {}
    figures = (pixels.mean(), pixels.std(), pixels[0].mean())
    return {"images": [*pixels.shape, *(round(float(one), 2) for one in figures)]}


@functools.lru_cache(maxsize=4)
def _vocabulary(tokenizer: Any, length: int) -> bytes:
    """A digest of every token and its id, kept for as long as no token is added: it takes 0.1 s for 150,000 tokens."""
    digest = hashlib.sha256(str(length).encode())
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0])):
        digest.update(f"{token}\0{number}\0".encode(errors="surrogatepass"))
    return digest.digest()


def _ids(tokenizer: Any, text: str) -> list[int] | None:
    """A text's ids with the special tokens around it; None where the tokenizer cannot read it."""
    try:
        return list(tokenizer(text, add_special_tokens=True, verbose=False).input_ids)
    except BaseException as error:  # some cannot read every script
        if not is_fault(error):
            raise
        return None


def is_fault(error: BaseException) -> bool:
    """Whether a tokenizer raised it, a panic of the tokenizers library among them, and not an interrupt."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
