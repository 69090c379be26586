"""Answers to example inputs before and after each head, as they come with the project: read without the model that gave them.

    found = find_answers(bundled.CARDS["opt-mini"], "python-docs", statistics.digest, bins=100, predictions=2000)
    found.answer("2.3", "Open the file for reading; close the file after").after["peak"][0]   # ("“ the”", 0.21)

`python -m docs.first_answers` measures and keeps them, a ledger for each model; a test measures some again.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation_core.models.info import ModelInfo
from ablation_core.runs.ledger import find_runs
from ablation_core.storage import CACHE, matches_schema

if TYPE_CHECKING:
    from ablation_core.experiments.user_input import Answer
    from ablation_core.models.loaded import LoadedModel

KIND = "answers"
IMAGES = "images"  # the unit that has the example images
TOP = 5
_RECORD: dict[str, Any] = {"head": str, "input": str, "before": [list], "after": dict}
_IMAGE: dict[str, Any] = {"number": int, "name": str, "png": str}

Guesses = list[tuple[str, float]]


@dataclass(frozen=True)
class TopAnswers:
    """The most probable tokens or classes and their probabilities, without and with an ablation.

    Attributes:
        after: by method.
    """

    before: Guesses
    after: dict[str, Guesses]

    @classmethod
    def of(cls, model: LoadedModel, answer: Answer) -> TopAnswers:
        """Of the first place that was asked for."""
        from ablation_core.experiments.predictions.per_prediction import class_name

        def top(shares: Any) -> Guesses:
            order = (-shares).argsort(kind="stable")[:TOP]
            return [(class_name(model, int(one)), float(shares[one])) for one in order]

        return cls(top(answer.before[0]), {method: top(shares[0]) for method, shares in answer.after.items()})


@dataclass(frozen=True)
class ExampleImage:
    """An image of the data, as the model receives it.

    Attributes:
        number: in the data.
        name: its class.
    """

    number: int
    name: str
    png: bytes


@dataclass(frozen=True)
class KnownAnswers:
    """The answers of one model. An image's input is named by `image_input`."""

    answers: dict[tuple[str, str], TopAnswers]
    images: tuple[ExampleImage, ...] = ()

    def answer(self, head: str, asked: str) -> TopAnswers | None:
        return self.answers.get((head, asked))


def image_input(number: int) -> str:
    return f"image {number}"


def find_answers(
    info: ModelInfo, data_ref: str, digest: str, bins: int, predictions: int, folder: Path = CACHE
) -> KnownAnswers:
    """The answers of just this model, data and statistics; empty where there are none.

    Args:
        digest: of the statistics.
        predictions: of the data from which the images and the resampled values are taken.
    """
    for run in find_runs(folder, KIND, info.fingerprint, data_ref):
        made = run.run
        if (made["bins"], made["statistics"]["digest"], made["data"]["predictions"]) == (bins, digest, predictions):
            return _read(run.done)
    return KnownAnswers({})


def answer_record(head: str, asked: str, found: TopAnswers) -> dict:
    """What a ledger keeps of an answer."""
    return {"head": head, "input": asked, "before": found.before, "after": found.after}


def images_record(images: list[ExampleImage]) -> dict:
    return {
        "images": [
            {"number": one.number, "name": one.name, "png": base64.b64encode(one.png).decode()} for one in images
        ]
    }


def _read(done: dict[str, dict]) -> KnownAnswers:
    answers = {
        (record["head"], record["input"]): TopAnswers(
            _guesses(record["before"]), {method: _guesses(rows) for method, rows in record["after"].items()}
        )
        for record in done.values()
        if matches_schema(record, _RECORD)
    }
    images = done.get(IMAGES, {}).get("images", [])
    if not matches_schema(images, [_IMAGE]):
        images = []
    return KnownAnswers(
        answers, tuple(ExampleImage(one["number"], one["name"], base64.b64decode(one["png"])) for one in images)
    )


def _guesses(rows: list) -> Guesses:
    return [(str(text), float(share)) for text, share in rows]
