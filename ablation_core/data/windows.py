"""From texts, or from tokens that a person gives, to windows with their targets, as many as the predictions asked for need.

**Packed**: the texts follow each other and are cut into windows of equal length, what is left at the end unused; no padding.
**Documents**: each document begins a window of its own, continues in the next where it is longer, and is padded on the right;
no window holds two of them, so that nothing attends from one to another.
**Given**: rows of tokens as they are, padded on the right where they differ in length.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ablation_core.data.dataset import IGNORED
from ablation_core.data.references import packed_pieces
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import encode_plain, known_tokens, ordinary_tokens, special_ids, special_tokens

CHOSEN_SHARE, MASKED_SHARE, RANDOM_SHARE = 0.15, 0.8, 0.1


@dataclass
class Reading:
    """What was met while texts were read, for the notes.

    Attributes:
        notes: sentences of whoever read the source.
        spelled: whether a text spelled special tokens.
        doubled: whether a text began with the token that begins each window anyway.
        special: how many positions hold special tokens inside a text, and so are no targets.
        cut: how many texts were too long for a window of their own, and lost their ends.
    """

    notes: list[str] = field(default_factory=list)
    spelled: bool = False
    doubled: bool = False
    special: int = 0
    cut: int = 0

    def sentences(self) -> tuple[str, ...]:
        said = list(dict.fromkeys(self.notes))
        if self.doubled:
            said.append("A text begins with the token that begins each window; it was not repeated.")
        if self.spelled:
            said.append("Special tokens that the text spells were read as the letters they are written with.")
        if self.special:
            said.append(f"{self.special:,} special tokens inside the texts are not scored.")
        return tuple(said)


@dataclass(frozen=True)
class Window:
    """A row of tokens, its targets (or its one class), and how many tokens there are."""

    ids: np.ndarray
    targets: np.ndarray
    length: int


@dataclass(frozen=True)
class Body:
    """A window's tokens before targets are chosen: `before` and `after` of them are special ones put around a text."""

    ids: list[int]
    before: int = 0
    after: int = 0
    targets: list[int] | None = None  # given ones, at the logits' positions
    label: Any = None  # the class of the whole, where one is given
    trimmed: bool = False  # whether its attention mask has said which tokens are padding


def packed_bodies(
    texts: Iterable[str], model: LoadedModel, seq_len: int, reading: Reading, ending: bool = False
) -> Iterator[Body]:
    """Consecutive windows of one text in pieces, read and tokenised only as far as they are asked for.

    Args:
        ending: whether what is left at the end has a window too, as that of a document has.
    """
    before, after = special_tokens(model)
    body = seq_len - len(before) - len(after)
    held: list[int] = []
    for number, piece in enumerate(texts):
        held += _tokens(model, piece, reading, first=number == 0)
        whole = len(held) // body * body
        for start in range(0, whole, body):
            yield Body([*before, *held[start : start + body], *after], len(before), len(after))
        held = held[whole:]
    if ending and held:
        yield Body([*before, *held, *after], len(before), len(after))


def packed_documents(documents: Iterable[str], model: LoadedModel, seq_len: int, reading: Reading) -> Iterator[Body]:
    """As `packed_bodies`, of documents that stand a blank line apart."""
    return packed_bodies(
        packed_pieces(_without_begin(document, model, reading) for document in documents), model, seq_len, reading
    )


def document_bodies(documents: Iterable[str], model: LoadedModel, seq_len: int, reading: Reading) -> Iterator[Body]:
    """Windows of each document by itself."""
    before, after = special_tokens(model)
    body = seq_len - len(before) - len(after)
    for document in documents:
        tokens = _tokens(model, document, reading, first=True)
        for start in range(0, len(tokens), body):
            yield Body([*before, *tokens[start : start + body], *after], len(before), len(after))


def given_bodies(rows: Iterable[Body], model: LoadedModel) -> Iterator[Body]:
    """Rows of tokens as a person gives them, looked at.

    Raises:
        DataError: an id is no token of the model, or a row is longer than the model can read.
    """
    for number, row in enumerate(rows):
        if model.max_length is not None and len(row.ids) > model.max_length:
            raise DataError(
                f"Row {number} has {len(row.ids):,} tokens, but {model.ref} reads at most {model.max_length:,}."
            )
        check_ids(row.ids, number, model)
        for label in {*(row.targets or ())} - {IGNORED}:
            if not 0 <= label < model.vocabulary:
                raise DataError(
                    f"Row {number} has the label {label}; labels are tokens from 0 to {model.vocabulary - 1:,}, or {IGNORED} "
                    f"where nothing is predicted."
                )
        yield row


def check_ids(ids: Sequence[int], number: int, model: LoadedModel) -> None:
    """Refuse ids that are no tokens of the model.

    Raises:
        DataError: the sentence names the row and the id.
    """
    if not ids:
        return
    if min(ids) < 0:
        raise DataError(f"Row {number} holds the token {min(ids)}; ids of tokens are 0 or more.")
    if max(ids) >= (known := known_tokens(model)):
        raise DataError(
            f"Row {number} holds the token {max(ids):,}, but {model.ref} knows {known:,} tokens: the ids are another model's."
        )


def make_windows(
    bodies: Iterable[Body], model: LoadedModel, predictions: int, seed: int, reading: Reading
) -> tuple[list[Window], int, int]:
    """Windows for so many predictions, and one more to take values from where one would do.

    Returns:
        The windows, how many of them are scored, and how many predictions there are.
    """
    special = np.array(sorted(special_ids(model)), dtype=np.int64)
    windows: list[Window] = []
    missing, sequences = predictions, 0
    for number, body in enumerate(bodies):
        ids = np.array(body.ids, dtype=np.int64)
        inside = np.isin(ids, special)
        inside[: body.before] = True
        inside[len(ids) - body.after :] = True
        if body.targets is not None:
            target = np.array(body.targets, dtype=np.int64)
        elif model.modality == "causal":
            target = np.append(np.where(inside[1:], IGNORED, ids[1:]), IGNORED)
        else:
            ids, target = _masked(ids, np.flatnonzero(~inside), model, np.random.default_rng((seed, number)))
        scored = np.flatnonzero(target != IGNORED)
        if not len(scored):
            continue
        reading.special += int(inside.sum()) - body.before - body.after if body.targets is None else 0
        target[scored[missing:]] = IGNORED
        windows.append(Window(ids, target, len(ids)))
        sequences += missing > 0
        missing -= min(missing, len(scored))
        if not missing and len(windows) > 1:
            break
    if isinstance(bodies, Generator):
        bodies.close()  # so that whoever reads the source says now what was met
    return windows, sequences, predictions - missing


def stacked(windows: Sequence[Window], length: int, filler: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and attention mask of equal length, padded on the right; int64 (windows, length)."""
    ids = np.full((len(windows), length), filler, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : window.length], mask[row, : window.length] = window.ids, 1
    return ids, mask


def stacked_targets(windows: Sequence[Window], length: int) -> np.ndarray:
    """The windows' targets, as `stacked` has their ids."""
    targets = np.full((len(windows), length), IGNORED, dtype=np.int64)
    for row, window in enumerate(windows):
        targets[row, : window.length] = window.targets
    return targets


def plain_tokens(model: LoadedModel, text: str, reading: Reading) -> list[int]:
    """A whole text's tokens, without those that the tokenizer puts around it; none of them special."""
    return _tokens(model, text, reading, first=True)


def _tokens(model: LoadedModel, text: str, reading: Reading, first: bool) -> list[int]:
    if first:
        text = _without_begin(text, model, reading)
    tokens, spelled = encode_plain(model, text)
    reading.spelled |= spelled
    return tokens


def _without_begin(text: str, model: LoadedModel, reading: Reading) -> str:
    """The text without the token that begins a window spelled at its own beginning: one is enough."""
    tokenizer = model.tokenizer
    for begin in {tokenizer.bos_token, tokenizer.cls_token} - {None}:
        if text.startswith(begin):
            reading.doubled = True
            return text[len(begin) :]
    return text


def _masked(
    ids: np.ndarray, ordinary: np.ndarray, model: LoadedModel, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A window's corrupted ids and its targets, after BERT (Devlin et al. 2019, section 3.1).

    Args:
        ordinary: the positions that may be chosen: those without a special token.
    """
    if model.tokenizer is None or model.tokenizer.mask_token_id is None:
        raise DataError(f"The tokenizer of {model.ref} has no mask token; a masked language model needs one.")
    targets = np.full_like(ids, IGNORED)
    if not len(ordinary):
        return ids, targets
    count = len(ordinary)
    chosen = ordinary[np.sort(generator.permutation(count)[: max(1, round(CHOSEN_SHARE * count))])]
    targets[chosen] = ids[chosen]
    fate = generator.random(len(chosen))
    noise = generator.choice(ordinary_tokens(model), len(chosen))
    corrupted = ids.copy()
    corrupted[chosen] = np.where(
        fate < MASKED_SHARE,
        model.tokenizer.mask_token_id,
        np.where(fate < MASKED_SHARE + RANDOM_SHARE, noise, ids[chosen]),
    )
    return corrupted, targets
