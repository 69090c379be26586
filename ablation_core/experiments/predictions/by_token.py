"""Which tokens an ablation harms most: its change of loss on every prediction, summed by what was to be predicted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ablation_core.experiments.predictions.per_prediction import PredictionEffects


@dataclass(frozen=True)
class TokenHarm:
    """What an ablation does to the predictions of one token or class.

    Attributes:
        token: its name; tokens of one name are taken together.
        predictions: how many of them there are.
        mean: their mean change of loss, nats per prediction.
        total: the sum of their changes, nats.
        share: of the sum over all tokens whose total is above 0; below 0 where the loss falls.
    """

    token: str
    predictions: int
    mean: float
    total: float
    share: float


def harm_by_token(effects: PredictionEffects, name: Callable[[int], str]) -> list[TokenHarm]:
    """Every predicted token, the one that loses most in sum first.

        most = harm_by_token(effects["mean"], lambda token: in_words(class_name(model, token)))[0]
        most.token, most.predictions, most.mean, most.share    # ("line breaks", 41, 0.9, 0.63)

    Predictions whose change is NaN or infinite are left out.

    Args:
        name: a token's or class's id → its name.
    """
    finite = np.isfinite(effects.change)
    ids, place = np.unique(effects.target[finite], return_inverse=True)
    names, of_id = np.unique([name(int(one)) for one in ids], return_inverse=True)
    if not len(names):
        return []
    label = of_id[place]
    counts = np.bincount(label, minlength=len(names))
    totals = np.bincount(label, weights=effects.change[finite], minlength=len(names))
    harm = totals[totals > 0].sum() or 1.0
    return [
        TokenHarm(
            str(names[one]),
            int(counts[one]),
            float(totals[one] / counts[one]),
            float(totals[one]),
            float(totals[one] / harm),
        )
        for one in np.argsort(-totals, kind="stable")
    ]


def in_words(name: str) -> str:
    """A token's name, as `class_name` writes it, with white space in words.

    >>> in_words("“⏎⏎”"), in_words("“  ”"), in_words("“ the”")
    ('line breaks', 'spaces', '“ the”')
    """
    if name.startswith("“") and not name.strip("“”⏎ \t"):
        return "line breaks" if "⏎" in name else "spaces"
    return name
