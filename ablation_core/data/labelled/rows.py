"""Texts with the class of each, out of files of records or a data set of the `datasets` library.

    csv:reviews.csv                   the columns text and label, or others that are usually called so
    csv:reviews.csv#body              another column of texts
    csv:reviews.csv#body,stars        both columns
    hf:owner/name/config#sentence,label

Rows are read only as far as `MOST_ROWS`, and those that are used are drawn from them: such data is often sorted by class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ablation_core.data import hub_datasets
from ablation_core.data.files import formats, tables
from ablation_core.data.files.text_files import plain_line_ends
from ablation_core.data.labelled.classes import ClassLabels, is_missing
from ablation_core.data.references import SPLITS, Split
from ablation_core.errors import DataError

MOST_ROWS = 50_000
TEXT_COLUMNS = ("text", "sentence", "content", "review", "body")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment")


@dataclass(frozen=True)
class LabelledText:
    """A text and the number of its class in the model."""

    text: str
    target: int


def read_labelled(ref: str, split: Split, labels: tuple[str, ...], notes: list[str]) -> list[LabelledText]:
    """The part's first rows, in order, each with its class.

    Args:
        labels: the model's class names.
        notes: gets sentences about what was left out or matched otherwise than by name.

    Raises:
        DataError: there is no such data, it lacks a column, or a label is none of the model's classes.
    """
    rows, name, names = _hub_rows(ref, split) if ref.startswith("hf:") else _table_rows(ref, split)
    classes = ClassLabels(labels, names)
    found: list[LabelledText] = []
    without_text = without_label = 0
    crlf = False
    for number, (text, label) in enumerate(islice(rows, MOST_ROWS), start=1):
        if is_missing(label, labels):
            without_label += 1
        elif text is None or (isinstance(text, str) and not text.strip()):
            without_text += 1
        elif not isinstance(text, str):
            raise DataError(
                f"The text column of {name} holds {type(text).__name__} values; name both columns: {_how(ref)}."
            )
        else:
            plain, changed = plain_line_ends(text, name)
            crlf = crlf or bool(changed)
            found.append(LabelledText(plain, classes(label, f"row {number} of the {split} part of {name}")))
    if crlf:
        notes.append(f"Line ends (CR LF) in {name} were read as LF.")
    for count, what in ((without_text, "text"), (without_label, "label")):
        if count:
            notes.append(f"{count:,} rows of {name} without a {what} were left out.")
    if next(iter(rows), None) is not None:
        notes.append(f"Texts were drawn from the first {MOST_ROWS:,} rows of the {split} part of {name}.")
    if said := classes.note():
        notes.append(said)
    if not found:
        raise DataError(f"The {split} part of {name} has no text with a label.")
    return found


def _table_rows(ref: str, split: Split) -> tuple[Iterator[tuple[Any, ...]], str, tuple[str, ...]]:
    table = formats.parse(ref)
    columns = choose_columns(ref, table.column, tables.column_names(table), str(table.path))
    records = tables.read_records(table, columns)
    part = (record for number, record in enumerate(records) if number % 2 == SPLITS.index(split))
    return part, str(table.path), ()


def _hub_rows(ref: str, split: Split) -> tuple[Iterator[tuple[Any, ...]], str, tuple[str, ...]]:
    wanted = hub_datasets.parse(ref)
    rows, names = hub_datasets.read_labelled(ref, split)
    first = next(rows, None)
    if first is None:
        raise DataError(f"The {split} part of {ref} is empty.")
    text, label = choose_columns(ref, wanted.column, list(first), wanted.name)

    def pairs() -> Iterator[tuple[Any, ...]]:
        yield first[text], first[label]
        yield from ((row[text], row[label]) for row in rows)

    return pairs(), wanted.name, names.get(label, ())


def choose_columns(ref: str, named: str, there: list[str], name: str) -> tuple[str, str]:
    """The columns of texts and of labels: those that a reference names, else those that are usually called so.

    >>> choose_columns("csv:r.csv#body,stars", "body,stars", ["id", "body", "stars"], "r.csv")
    ('body', 'stars')

    Raises:
        DataError: there is none; the sentence says which columns there are, and how to name them.
    """
    text: str | None = named
    label: str | None = None
    if "," in named and named not in there:
        text, _, label = (part.strip() for part in named.rpartition(","))
    elif "#" not in ref:
        text = next((one for one in TEXT_COLUMNS if one in there), None)
    label = label or next((one for one in LABEL_COLUMNS if one in there and one != text), None)
    for column, what in ((text, "of texts"), (label, "of labels")):
        if column is None or column not in there:
            which = f"{column!r}" if column else f"{what} that is called as usual"
            raise DataError(
                f"{name} has no column {which}; it has {', '.join(map(str, there[:12]))}. Name both: {_how(ref)}."
            )
    assert text is not None and label is not None  # the loop has seen both
    if text == label:
        raise DataError(f"Texts and labels of {name} cannot both be the column {text!r}; name both: {_how(ref)}.")
    return text, label


def _how(ref: str) -> str:
    return f"{ref.partition('#')[0]}#TEXT,LABEL"
