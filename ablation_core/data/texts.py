"""Texts as a data set: windows of tokens, and their rows as batches."""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ablation_core.data.dataset import Batch, Data
from ablation_core.data.request import DataRequest
from ablation_core.data.windows import Body, Reading, make_windows, stacked, stacked_targets
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import check_known, padding_id, special_tokens


def check_window(model: LoadedModel, seq_len: int) -> None:
    """Refuse a window that the model cannot read, or that has no room for a prediction."""
    before, after = special_tokens(model)
    body = seq_len - len(before) - len(after)
    if model.max_length is not None and seq_len > model.max_length:
        raise DataError(f"{model.ref} reads at most {model.max_length} tokens; choose a seq-len up to that.")
    if body < 1 or (model.modality == "causal" and seq_len < 2):
        raise DataError(f"A window of {seq_len} tokens has no room for a prediction; choose a longer seq-len.")


def text_data(request: DataRequest, model: LoadedModel, bodies: Iterable[Body], reading: Reading) -> Data | None:
    """Windows as a data set, each as long as was asked for, or as the longest of them; None where there is none."""
    windows, sequences, done = make_windows(bodies, model, request.predictions, request.seed, reading)
    if not windows:
        return None
    longest = max(window.length for window in windows)
    length = longest if request.documents is not False or request.seq_len is None else request.seq_len
    ids, masks = map(torch.from_numpy, stacked(windows, length, padding_id(model)))
    labels = torch.from_numpy(stacked_targets(windows, length))
    check_known(model, int(ids.max()))
    digest = hashlib.sha256(ids.numpy().tobytes() + labels.numpy().tobytes())
    if not bool(masks.all()):
        digest.update(masks.numpy().tobytes())
    return request.data(
        model,
        seq_len=length,
        sequences=sequences,
        pool=len(windows),
        predictions=done,
        fingerprint=digest.hexdigest()[:16],
        notes=reading.sentences(),
        rows=rows_of(ids, masks, labels),
    )


def rows_of(ids: Tensor, masks: Tensor, targets: Tensor) -> Callable[[Sequence[int]], Batch]:
    """What gives the rows of these numbers as a batch; all three begin with one row per sequence."""

    def rows(chosen: Sequence[int]) -> Batch:
        index = torch.as_tensor(list(chosen))
        return Batch({"input_ids": ids[index], "attention_mask": masks[index]}, targets[index])

    return rows
