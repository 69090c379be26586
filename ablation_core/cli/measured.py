"""What commands that measure begin with: the model, the data, the methods and the statistics; and their progress bar."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ablation_core.activations.files import (
    as_statistics,
    find_for_data,
    load_statistics,
    missing_statistics,
    other_statistics,
)
from ablation_core.data.references import STATISTICS_PREDICTIONS, Split, is_task, usual_data
from ablation_core.errors import StatisticsError
from ablation_core.methods.registry import Method, choose_methods
from ablation_core.progress import Progress, reporting

if TYPE_CHECKING:
    from ablation_core.activations.statistics import Statistics
    from ablation_core.data.dataset import Data
    from ablation_core.models.loaded import LoadedModel
    from ablation_core.presentation import Presented

PREDICTIONS = 2000
PROMPTS = 200  # of a task


def load_named(parsed: argparse.Namespace, split: Split) -> "tuple[LoadedModel, Data]":
    """The model and a part of the data that the command line names."""
    from ablation_core.loading.load import load_model

    model = load_model(parsed.model, parsed.device, parsed.dtype, parsed.cache_dir, notify=_said)
    return model, load_part(parsed, model, parsed.data, split)


def load_part(parsed: argparse.Namespace, model: "LoadedModel", ref: str | None, split: Split) -> "Data":
    """A part of a data set, as the command line's options say."""
    from ablation_core.data.load import load_data

    usual = STATISTICS_PREDICTIONS[model.modality] if split == "statistics" else PREDICTIONS
    if ref and is_task(ref):
        usual = PROMPTS
    data = load_data(
        usual_data(model.ref, model.modality) if ref is None else ref,
        model,
        predictions=usual if parsed.predictions is None else parsed.predictions,
        seq_len=parsed.seq_len,
        batch_size=parsed.batch_size,
        seed=parsed.seed,
        split=split,
        documents=parsed.documents,
    )
    for note in data.notes:
        print(note, file=sys.stderr)
    return data


def check_save(parsed: argparse.Namespace) -> None:
    """Find out before a long run whether its result can be kept under the name that --save gives.

    Raises:
        ReportError: the name is taken, or cannot be one.
    """
    if parsed.save is not None:
        from ablation_core.saved.shelves import FolderShelf, check_free

        check_free(FolderShelf(parsed.cache_dir), parsed.save)


def save_named(parsed: argparse.Namespace, result: "Presented") -> None:
    """Keep a result under the name that --save gives."""
    if parsed.save is not None:
        from ablation_core.saved.results import save_result

        save_result(result, parsed.save, cache=parsed.cache_dir)
        print(f"saved as {parsed.save.strip()}", file=sys.stderr)


def load_measured(parsed: argparse.Namespace) -> "tuple[LoadedModel, Data, list[Method], Statistics | None]":
    """The same with the methods, and the statistics that are named or fit the data."""
    from ablation_core.activations.statistics import not_finite_sentence

    check_save(parsed)
    model, data = load_named(parsed, "evaluation")
    if parsed.statistics is not None:
        statistics = as_statistics(parsed.statistics, model, parsed.cache_dir)
    else:
        entry = find_for_data(model, data, parsed.cache_dir)
        statistics = load_statistics(entry.path, model) if entry else None
        if entry and entry.provenance["data"] != data.ref:
            print(f"note: statistics of {entry.provenance['data']}, as there are none of {data.ref}", file=sys.stderr)
    if statistics is None and (others := other_statistics(model, data.ref, parsed.cache_dir)):
        print(f"note: {others}", file=sys.stderr)
    if statistics is not None and (broken := not_finite_sentence(statistics)):
        print(f"warning: of the statistics made from {statistics.provenance['data']}, {broken}", file=sys.stderr)
    methods = choose_methods(parsed.method or ["peak"], model.modality, data)
    if statistics is None and (needing := [method.name for method in methods if method.needs_statistics]):
        raise StatisticsError(
            f"The method {needing[0]} needs activation statistics. {missing_statistics(model, data.ref, parsed.cache_dir)}"
        )
    return model, data, methods, statistics


def _said(words: str) -> None:
    """Where a person looks on, what takes a while is said."""
    if sys.stderr.isatty():
        print(words, file=sys.stderr)


@contextmanager
def progress_bar(words: str, unit: str) -> Iterator[Progress]:
    """A progress bar on standard error, where that is a terminal; yields a function of (done, total)."""
    with reporting(sys.stderr.isatty(), words, unit) as show:
        yield show or (lambda done, total: None)
