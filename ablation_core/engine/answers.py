"""From the scores of answers' tokens to those of a task's prompts: an answer of several tokens is one prediction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablation_core.data.dataset import IGNORED, Batch
from ablation_core.engine.metrics import Metric, ScoredLogits
from ablation_core.engine.scores import Scores


@dataclass(frozen=True, eq=False)
class ScoredAnswers:
    """The same of a task's prompts, float64 (prompts,): an answer of several tokens is scored whole.

    Attributes:
        loss, kl: summed over the right answer's tokens, nats.
        top1, top10: of its least probable token.
        wrong_loss: of the wrong answer, summed over its tokens; minus `loss` it is the logit difference.
    """

    loss: np.ndarray
    top1: np.ndarray
    top10: np.ndarray
    kl: np.ndarray
    wrong_loss: np.ndarray


@dataclass(frozen=True)
class _TokenFigure:
    name: str
    values: Callable[[Any], np.ndarray]


def _second_loss(run: ScoredLogits) -> np.ndarray:
    """The loss of each prediction's second target."""
    both = run.logits.gather(1, run.targets.to(run.logits.device)).double().cpu().numpy()
    return run.loss + both[:, 0] - both[:, 1]


ANSWER_TOKENS = (  # what is kept of each token of an answer until they are put together
    _TokenFigure("loss", lambda run: run.loss),
    _TokenFigure("top1", lambda run: run.top1),
    _TokenFigure("top10", lambda run: run.top10),
    _TokenFigure("kl", lambda run: run.kl),
    _TokenFigure("other", _second_loss),
)


def answer_scores(batch: Batch, tokens: Scores, metrics: Sequence[Metric]) -> Scores:
    """The scores of a task's prompts, (prompts,), from those of their answers' tokens by `ANSWER_TOKENS`."""
    answers = batch.answers
    assert answers is not None
    scored = (batch.targets != IGNORED).cpu()
    row = scored.nonzero()[:, 0]
    item, wrong = answers.item[row].numpy(), answers.wrong[row].numpy()
    beside = (answers.others[scored] != IGNORED).numpy()
    size, right = int(answers.item.max()) + 1, ~wrong

    def summed(values: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.bincount(item[which], weights=values[which], minlength=size)

    def least(values: np.ndarray) -> np.ndarray:
        found = np.ones(size)
        np.minimum.at(found, item[right], values[right])
        return found

    # The wrong answer is read off the same logits, or has a row of its own.
    other = np.where(beside, tokens["other"], tokens["loss"])
    has_row = np.zeros(size, dtype=bool)
    has_row[item[wrong]] = True
    run = ScoredAnswers(
        loss=summed(tokens["loss"], right),
        top1=least(tokens["top1"]),
        top10=least(tokens["top10"]),
        kl=summed(tokens["kl"], right),
        wrong_loss=summed(other, np.where(has_row[item], wrong, right)),
    )
    return Scores({metric.name: metric.values(run) for metric in metrics})
