"""Labelled texts as a data set for a text classifier: each text is a sequence, its class the one prediction.

A text is tokenised with the special tokens that the model's tokenizer puts around it, and padded on the right to the
longest of the data set. One that is longer than `seq_len` loses its end, as transformers' `truncation=True` has it; a note
says how many did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from ablation_core.data.dataset import Data
from ablation_core.data.labelled.rows import LabelledText, read_labelled
from ablation_core.data.request import DataRequest
from ablation_core.data.texts import check_window, rows_of
from ablation_core.data.windows import Body, Reading, Window, plain_tokens, stacked
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import check_known, padding_id, special_tokens


def load_labelled(request: DataRequest, model: LoadedModel) -> Data:
    """A reference's labelled texts: the seed draws which of the part are used, and their order.

    Raises:
        DataError: it holds no labelled texts, or a label is none of the model's classes.
    """
    ref = request.ref
    if ref.partition(":")[0] not in ("jsonl", "csv", "parquet", "hf"):
        raise DataError(needs_labels(model, f"{ref} has none"))
    reading, seq_len = Reading(), readable(model, request.seq_len)
    rows = read_labelled(ref, request.split, model.labels, reading.notes)
    order = np.random.default_rng(request.seed).permutation(len(rows))[: max(2, request.predictions)]
    windows = [window_of(rows[number], model, seq_len, reading) for number in order]
    return labelled_data(request, model, windows, reading)


def readable(model: LoadedModel, seq_len: int | None) -> int:
    """The most tokens of a text that are read: so many, or as many as the model has positions for.

    Raises:
        DataError: there is no room for a text.
    """
    assert seq_len is not None  # only rows of ids that are given come without
    seq_len = seq_len if model.max_length is None else min(seq_len, model.max_length)
    check_window(model, seq_len)
    return seq_len


def needs_labels(model: LoadedModel, why: str) -> str:
    """The sentence for data without labels."""
    return (
        f"{model.ref} is a text classifier, which needs texts with a label, and {why}: write csv:FILE#TEXT,LABEL (or jsonl:, "
        f"parquet:, hf:), or give pairs of a text and its class."
    )


def window_of(row: LabelledText | Body, model: LoadedModel, seq_len: int | None, reading: Reading) -> Window:
    """A text, or tokens that are given, as a row with its class for a target.

    Args:
        seq_len: the most tokens, special ones included; None: as many as the model reads.
    """
    if isinstance(row, Body):
        return Window(np.array(row.ids, dtype=np.int64), np.array([row.label], dtype=np.int64), len(row.ids))
    before, after = special_tokens(model)
    tokens = plain_tokens(model, row.text, reading)
    room = len(tokens) if seq_len is None else seq_len - len(before) - len(after)
    reading.cut += len(tokens) > room
    ids = np.array([*before, *tokens[:room], *after], dtype=np.int64)
    if not len(ids):
        raise DataError(f"The tokenizer of {model.ref} makes no tokens of the text {row.text[:40]!r}; leave it out.")
    return Window(ids, np.array([row.target], dtype=np.int64), len(ids))


def labelled_data(request: DataRequest, model: LoadedModel, windows: Sequence[Window], reading: Reading) -> Data:
    """Texts as windows, each with its class, as a data set."""
    longest = max(window.length for window in windows)
    if model.max_length is not None and longest > model.max_length:
        raise DataError(f"A text has {longest:,} tokens, but {model.ref} reads at most {model.max_length:,}; cut it.")
    ids, masks = (torch.from_numpy(array) for array in stacked(windows, longest, padding_id(model)))
    targets = torch.from_numpy(np.concatenate([window.targets for window in windows]))
    check_known(model, int(ids.max()))
    count = min(request.predictions, len(windows))
    notes = list(reading.sentences())
    if reading.cut:
        notes.append(
            f"{reading.cut:,} of {len(windows):,} texts are longer than the window; their ends were cut off (--seq-len)."
        )
    if len(targets[:count].unique()) == 1 and count > 1:
        notes.append(f"All {count:,} texts are of the class {model.labels[int(targets[0])]}.")

    digest = hashlib.sha256(b"".join(array.numpy().tobytes() for array in (ids, masks, targets)))
    return request.data(
        model,
        seq_len=longest,
        documents=None,
        sequences=count,
        pool=len(windows),
        predictions=count,
        fingerprint=digest.hexdigest()[:16],
        notes=tuple(notes),
        rows=rows_of(ids, masks, targets),
    )
