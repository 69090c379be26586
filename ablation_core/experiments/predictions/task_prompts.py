"""What a task asks: each prompt with its right and its wrong answer, as texts.

asked_prompts(model, data)[0]   # AskedPrompt(prompt="When Mary and John …", right=" Mary", wrong=" John")
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ablation_core.data.dataset import IGNORED, Data
from ablation_core.errors import DataError
from ablation_core.experiments.predictions.per_prediction import class_name, token_texts
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import special_tokens


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt as the model reads it, without the special tokens around it, and both answers."""

    prompt: str
    right: str
    wrong: str


def asked_prompts(model: LoadedModel, data: Data, numbers: Sequence[int] | None = None) -> list[AskedPrompt]:
    """The prompts of a task with these numbers; by default all.

    Raises:
        DataError: the data is not a task.
    """
    if not data.is_task:
        raise DataError(f"{data.ref} is not a task: it has no right and wrong answers.")
    numbers = range(data.sequences) if numbers is None else numbers
    batch, found = data.rows(numbers), []
    answers, ids = batch.answers, batch.inputs["input_ids"]
    assert answers is not None
    before, after = map(len, special_tokens(model))
    for item in range(len(numbers)):
        rows = (answers.item == item).nonzero()[:, 0].tolist()
        first, last = rows[0], rows[-1]  # one row, or one with the right answer and one with the wrong one
        end = int(answers.ends[first]) - (0 if model.modality == "causal" else after)
        wrong = _answer(batch.targets[last]) if first != last else _answer(answers.others[first])
        named = _class_names if model.predicts_class else token_texts
        texts = [
            token_texts(model, ids[first, before:end].tolist()),
            *(named(model, one) for one in (_answer(batch.targets[first]), wrong)),
        ]
        found.append(AskedPrompt(*("".join(text) for text in texts)))
    return found


def _class_names(model: LoadedModel, classes: Sequence[int]) -> list[str]:
    return [class_name(model, number) for number in classes]


def _answer(targets: Tensor) -> list[int]:
    return targets[targets != IGNORED].tolist()
