"""The text the bundled language models learn from: English that ships with Python and this project's requirements.

Two sources, both found in the running environment, so that nothing is downloaded:

* the docstrings of every module, class and function of the standard library and of the installed packages;
* the long descriptions (README prose) that installed packages carry in their metadata.

The `python-docs` data set is held out: the file that carries it is never read, and any document that shares a run of
`SHARED_WORDS` words with it is dropped.
"""

import ast
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

# The order fixes the ids: pad is 1 because OPT and RoBERTa count positions from it.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
SHARED_WORDS = 10
MIN_CHARACTERS = 60

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_WORD = re.compile(r"[a-z0-9_]+")


def training_documents(held_out: str) -> list[str]:
    """All training documents, without duplicates, in an order that depends on their content alone.

    Args:
        held_out: text to keep out; documents sharing `SHARED_WORDS` consecutive words with it are left out.
    """
    forbidden = set(_word_runs(held_out))
    unique: dict[str, str] = {}
    for text in _docstrings(_source_files()):
        unique.setdefault(_digest(text), text)
    for text in _descriptions():
        unique.setdefault(_digest(text), text)
    kept = {key: text for key, text in unique.items() if forbidden.isdisjoint(_word_runs(text))}
    return [kept[key] for key in sorted(kept)]


def train_tokenizer(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of `vocab_size` tokens whose first ids are `SPECIAL_TOKENS`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def encode_documents(tokenizer: Tokenizer, documents: list[str], separator: int) -> np.ndarray:
    """One uint16 array of token ids, each document preceded by `separator`."""
    units = []
    for start in range(0, len(documents), 1000):
        for encoding in tokenizer.encode_batch(documents[start : start + 1000], add_special_tokens=False):
            units.append(np.array([separator, *encoding.ids], dtype=np.uint16))
    return np.concatenate(units)


def _source_files() -> list[Path]:
    roots = {
        Path(sysconfig.get_path("stdlib")),
        Path(sysconfig.get_path("purelib")),
        Path(sysconfig.get_path("platlib")),
    }
    held_out_package = "pydoc_data"
    files = {path for root in roots for path in root.rglob("*.py") if held_out_package not in path.parts}
    return sorted(files)


def _docstrings(files: list[Path]) -> Iterator[str]:
    with ProcessPoolExecutor() as pool:
        for texts in pool.map(_docstrings_of_file, files, chunksize=200):
            yield from texts


def _docstrings_of_file(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError, MemoryError):
        return []  # test data of other packages: deliberately broken or in another encoding
    texts = (ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, _DOCUMENTED))
    return [text for raw in texts if raw and _is_english(text := inspect.cleandoc(raw))]


def _descriptions() -> Iterator[str]:
    for distribution in metadata.distributions():
        message: Any = distribution.metadata  # an email message, though typed as less
        text = message.get_payload()
        if isinstance(text, str) and _is_english(text):
            yield text.strip()


def _is_english(text: str) -> bool:
    """Long enough, and nearly all printable ASCII: other scripts would waste a small vocabulary."""
    return len(text) >= MIN_CHARACTERS and sum(character < "\x7f" for character in text) >= 0.97 * len(text)


def _word_runs(text: str) -> Iterator[int]:
    words = _WORD.findall(text.lower())
    return (hash(tuple(words[i : i + SHARED_WORDS])) for i in range(len(words) - SHARED_WORDS + 1))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def provenance() -> dict[str, str | int]:
    """What a card must say of the text: the Python and how many packages it was collected from."""
    return {"python": sys.version.split()[0], "packages": len({d.name for d in metadata.distributions()})}
