"""Where an ablation hurts: its change of loss on every single prediction, and what the model predicted instead.

The changes come from the scores that an experiment keeps anyway; the predictions themselves are computed again for the
few sequences that are looked at.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ablation_core.data.dataset import IGNORED, Batch, Data
from ablation_core.engine import clean_passes, forward, scoring
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.predictions.prediction_scores import locate_predictions
from ablation_core.methods.registry import Method
from ablation_core.models.loaded import LoadedModel

TOP = 5
_CONTEXT = 4  # tokens before one that decide how it is written
_BROKEN = "\ufffd"  # what decoding writes for bytes that are no whole character
_UNFINISHED = re.compile("⟨[0-9A-F]{2}( [0-9A-F]{2})*⟩$")  # the end of a token that is cut off amid a character
_BYTE = re.compile("<0x([0-9A-F]{2})>")  # a token of one byte, as SentencePiece names it


@dataclass(frozen=True, eq=False)
class PredictionEffects:
    """One method's effect on every scored prediction, in the order in which they are scored; each (predictions,).

    Attributes:
        sequence: the number of its window or image.
        position: where in the window the predicted token stands; 0 for classes.
        target: the token's id, or the image's class.
        before, after: loss in nats without and with the ablation.
    """

    sequence: np.ndarray
    position: np.ndarray
    target: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """After minus before: what is above 0 hurts."""
        return self.after - self.before

    def worst_first(self) -> np.ndarray:
        """The predictions' indices, the most harmed first, those that are not numbers before all others."""
        return np.argsort(-np.nan_to_num(self.change, nan=np.inf), kind="stable")

    def of_sequence(self, number: int) -> np.ndarray:
        """The indices of one sequence's predictions."""
        return np.flatnonzero(self.sequence == number)

    def by_sequence(self) -> tuple[np.ndarray, np.ndarray]:
        """Every sequence's number and its mean change, the most harmed first."""
        numbers, place = np.unique(self.sequence, return_inverse=True)
        means = np.bincount(place, weights=self.change) / np.bincount(place)
        order = np.argsort(-np.nan_to_num(means, nan=np.inf), kind="stable")
        return numbers[order], means[order]


def effect_per_prediction(run: AblationRun) -> dict[str, PredictionEffects]:
    """Of a run under way or finished: method name → its effect on every prediction scored so far."""
    sequence, position, target = locate_predictions(run.firsts, run.targets, run.model.modality)
    baseline, ablated, _ = run.scores()
    return {
        name: PredictionEffects(sequence, position, target, baseline.loss, scores.loss)
        for name, scores in ablated.items()
    }


@dataclass(frozen=True, eq=False)
class Predicted:
    """The most probable classes or tokens of some predictions before and after an ablation.

    Attributes:
        before, after: ids, the most probable first; int (predictions, up to `TOP`).
        before_share, after_share: their probabilities; float32, the same shape.
        target_before, target_after: the probability of what was right; float32 (predictions,).
    """

    before: np.ndarray
    before_share: np.ndarray
    after: np.ndarray
    after_share: np.ndarray
    target_before: np.ndarray
    target_after: np.ndarray


def predict(
    run: AblationRun, method: Method, sequences: Sequence[int], positions: Sequence[int] | None = None
) -> Predicted:
    """What the model predicts in these sequences of the run's data before and after its ablation by a method.

    Args:
        positions: of text, one position in each sequence, counted as in `PredictionEffects`: only its prediction is looked at. By
            default all that are scored, sequence after sequence in the order given.
    """
    batch = run.data.rows(sequences)
    if positions is not None and not run.model.predicts_class:
        places = torch.tensor([position - int(run.model.modality == "causal") for position in positions])[:, None]
        only = torch.full_like(batch.targets, IGNORED).scatter(1, places, batch.targets.gather(1, places))
        batch = Batch(batch.inputs, only)
    clean_pass = forward.record(run.model, batch)
    ablated = clean_passes.ablated_output(run.model, clean_pass, run.replacements.of(method, sequences))
    clean, changed = scoring.log_probabilities(run.model, clean_pass, [clean_pass.outputs[-1], ablated])
    targets = clean_pass.batch.targets
    right = targets[targets != IGNORED].cpu()[:, None]
    count = min(TOP, clean.shape[1])
    columns = []
    for log_probs in (clean, changed):
        shares, ids = log_probs.exp().topk(count, dim=1)
        columns += [ids.numpy(), shares.numpy()]
    return Predicted(*columns, *(log_probs.gather(1, right)[:, 0].exp().numpy() for log_probs in (clean, changed)))


def window_texts(model: LoadedModel, data: Data, sequence: int) -> tuple[np.ndarray, list[str]]:
    """A window's token ids as the model reads them, and each token as it is written there."""
    ids = data.rows([sequence]).inputs["input_ids"][0].numpy()
    return ids, token_texts(model, ids.tolist())


def token_texts(model: LoadedModel, ids: Sequence[int]) -> list[str]:
    """Each token as it is written behind those before it, so that the joined texts are the whole one.

    A tokenizer may write a token alone otherwise than in a text: some drop the space before it. Of a character that is
    split over several tokens the last has the character, and those before it show their bytes.
    """
    ids = [int(one) for one in ids]

    def written(some: list[int]) -> str:
        return model.tokenizer.decode(some, clean_up_tokenization_spaces=False)

    texts = []
    for place, one in enumerate(ids):
        before = ids[max(0, place - _CONTEXT) : place]
        left, whole = written(before), written([*before, one])
        if whole.endswith(_BROKEN):
            texts.append(_with_bytes(model, one))
            continue
        if not whole.startswith(left):
            left = left.rstrip(_BROKEN)  # this token completes the character
        texts.append(whole[len(left) :] if whole.startswith(left) else _alone(model, one))
    return texts


def characters(texts: Sequence[str]) -> list[range]:
    """The places of a window's tokens, those that write one character together in one range.

        >>> characters(["na", "⟨C3⟩", "ï", "ve"])
        [range(0, 1), range(1, 3), range(3, 4)]

    Args:
        texts: as `token_texts` writes them.
    """
    found, begun = [], 0
    for place, text in enumerate(texts):
        last = place + 1 == len(texts)
        if _UNFINISHED.search(text) and not last:
            continue
        if _UNFINISHED.search(text) or text[:1].isascii():  # cut off amid a character
            found += [range(one, one + 1) for one in range(begun, place + 1)]
        else:
            found.append(range(begun, place + 1))
        begun = place + 1
    return found


def joined(texts: Sequence[str]) -> str:
    """The text that tokens write together, without the bytes of characters that a later one of them completes."""
    return "".join(written_together([texts[place] for place in places]) for places in characters(texts))


def written_together(texts: Sequence[str]) -> str:
    """What the tokens of one of the ranges of `characters` write."""
    *parts, last = texts
    return "".join(_UNFINISHED.sub("", part) for part in parts) + last


def class_name(model: LoadedModel, number: int) -> str:
    """A token as it is written alone, in quotation marks, or a class by its name."""
    if model.predicts_class:
        return model.labels[number] if number < len(model.labels) else str(number)
    return "“" + _alone(model, int(number)).replace("\n", "⏎") + "”"


def _alone(model: LoadedModel, number: int) -> str:
    text = model.tokenizer.decode([number], clean_up_tokenization_spaces=False)
    return _with_bytes(model, number) if _BROKEN in text else text


def _with_bytes(model: LoadedModel, number: int) -> str:
    """A token's text with the bytes that are no whole character as ⟨C3⟩; as it is decoded where its bytes are unknown."""
    token = model.tokenizer.convert_ids_to_tokens(number)
    to_bytes = {sign: byte for byte, sign in bytes_to_unicode().items()}
    if single := _BYTE.fullmatch(token):
        raw = bytes.fromhex(single[1])
    elif all(sign in to_bytes for sign in token):
        raw = bytes(to_bytes[sign] for sign in token)
    else:
        return model.tokenizer.decode([number], clean_up_tokenization_spaces=False)
    text = raw.decode(errors="surrogateescape")  # a byte that is no character comes as U+DC00 + byte
    return re.sub(
        "[\udc80-\udcff]+", lambda found: f"⟨{' '.join(f'{ord(one) - 0xDC00:02X}' for one in found[0])}⟩", text
    )
