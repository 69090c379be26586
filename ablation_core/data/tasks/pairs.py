"""Prompts with a right and a wrong answer: what a task is made of, and the JSONL files that people bring.

    {"prompt": "When Mary and John went to the store, John gave a drink to", "right": " Mary", "wrong": " John",
     "counterfactual": "When Mary and John went to the store, Mary gave a drink to", "group": "Mary, John"}

One such object per line. `counterfactual` (a prompt of as many tokens) and `group` (rephrasings of one item, which
intervals keep together) may be left out. For a masked model the prompt says where the answer belongs with `[MASK]`, or
with its tokenizer's own mask; without one the answer belongs at its end. For a text
classifier the prompt is the text, and the answers are two of its classes.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation_core.data.files.formats import open_text
from ablation_core.data.files.text_files import not_utf_8_file, unreadable
from ablation_core.errors import DataError

_MOST_BYTES = 100_000_000
_FIELDS = {"prompt": True, "right": True, "wrong": True, "counterfactual": False, "group": False}  # name → needed


@dataclass(frozen=True)
class Pair:
    """One item of a task. A prompt is a text, or the ids of its tokens where the task is about tokens.

    Attributes:
        counterfactual: a prompt whose activations the method of that name takes; as many tokens as `prompt`.
        group: items of one group are resampled together; None for a group of its own.
    """

    prompt: str | tuple[int, ...]
    right: str | tuple[int, ...]
    wrong: str | tuple[int, ...]
    counterfactual: str | tuple[int, ...] | None = None
    group: str | None = None


def read_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a JSONL file, in order, read line by line.

    Raises:
        DataError: the file is not there or too large, or a line is not such a pair; the sentence names the line.
    """
    try:
        if path == Path():
            raise DataError("No file is named. Write pairs: followed by the path of a JSONL file.")
        if path.is_dir():
            raise DataError(f"{path} is a folder; pairs: needs a JSONL file.")
        if not path.is_file():
            raise DataError(f"There is no file {path}. Write pairs: followed by the path of a JSONL file.")
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is larger than {_MOST_BYTES // 1_000_000} MB; cut a part of it and use that.")
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _pair(line, f"Line {number} of {path}")
    except UnicodeDecodeError as error:
        raise not_utf_8_file(path, error.start) from error
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def _pair(line: str, where: str) -> Pair:
    try:
        fields: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON; each line is an object with prompt, right and wrong.") from error
    if not isinstance(fields, dict):
        raise DataError(f"{where} is not an object; each line is an object with prompt, right and wrong.")
    if unknown := sorted(set(fields) - set(_FIELDS)):
        raise DataError(f"{where} has a field {unknown[0]!r}; the fields are {', '.join(_FIELDS)}.")
    if type(fields.get("group")) is int:  # a number is as good a name
        fields["group"] = str(fields["group"])
    for name, needed in _FIELDS.items():
        value = fields.get(name)
        if value is None and needed:
            raise DataError(f"{where} has no {name}; each line needs prompt, right and wrong.")
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: {name} is {json.dumps(value)[:40]}, not a text.")
    for name in ("right", "wrong"):
        if not fields[name]:
            raise DataError(f"{where}: the {name} answer is empty.")
    if fields["right"] == fields["wrong"]:
        raise DataError(f"{where}: the right and the wrong answer are the same, {fields['right']!r}.")
    return Pair(fields["prompt"], fields["right"], fields["wrong"], fields.get("counterfactual"), fields.get("group"))
