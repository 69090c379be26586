"""Most affected tokens: the text shaded token by token, or the images or labelled texts, the largest increase in loss first."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from ablation_core.data.dataset import Data
from ablation_core.errors import as_markdown
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.predictions import per_prediction
from ablation_core.experiments.predictions.by_token import harm_by_token, in_words
from ablation_core.experiments.predictions.per_prediction import Predicted, PredictionEffects, class_name
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.report.numbers import number as signed
from ablation_core.report.numbers import sample_unit
from ablation_core.report.sentences import harm_sentence
from ablation_core.report.token_html import Card, ShadedToken, as_seen, full_scale, gallery, scale_legend, shaded_text
from ablation_core.ui import page as ui
from ablation_core.ui.ablation.job import AblationProgress
from ablation_core.ui.shared import SEED, shared_data
from ablation_core.ui.sidebar.view import View
from ablation_core.ui.widgets import with_digits

WINDOWS, IMAGES, TEXTS, TOKENS = 2, 12, 20, 15
ORDERS = ("largest increase first", "largest decrease first", "in order")
_CONTEXT = 8
_DIGITS = {
    "change, nats": "+.3f",
    "loss before": ".3f",
    "loss after": ".3f",
    "probability before": ".1%",
    "probability after": ".1%",
}
_SHORT = {  # so that the table fits beside the sidebar
    f"probability {when}": st.column_config.NumberColumn(f"P {when}", help="The probability of the token itself.")
    for when in ("before", "after")
}


@st.fragment
def show_affected_tokens(view: View, outcome: AblationProgress) -> None:
    """The effect of the view's method on each prediction, a page of sequences at a time."""
    effect = outcome.effects.get(view.method)
    what = sample_unit(view.model.modality, "tokens")
    st.subheader(f"Most affected {what}", anchor=False)
    if not outcome.measured:
        st.caption(
            f"Shown once all {sample_unit(view.model.modality)} are measured: each {what[:-1]} by its change of loss."
        )
        return
    if effect is None or not view.selection.chosen:
        st.caption("No neurons are ablated." if effect else f"{view.method} was not measured here.")
        return
    with ui.show_errors():
        data = shared_data(view.model, view.data_ref, view.predictions, "evaluation")
        spec = AblationSpec(view.selection, (METHODS[view.method],), view.bins, SEED)
        run = AblationRun(view.model, data, spec, view.statistics, learned=outcome.learned)
        _by_token(run, effect)
        worse, better = (int((sign * effect.change > 0).sum()) for sign in (1, -1))
        st.markdown(
            f"With **{view.method}**, the loss rises on {worse:,} of {len(effect.change):,} predicted {what} and falls on "
            f"{better:,}. The most affected 10% account for {_tenth(effect):.0%} of the total increase."
        )
        results = outcome.result.results if outcome.result else ()
        row = next((row for row in results if row.method == view.method), None)
        if row is not None and row.change["loss"].low is not None and not row.change["loss"].shows_effect:
            st.caption("Little happens here: the mean change of loss is not significant.")
        numbers, means = _paged(effect, {"images": IMAGES, "texts": TEXTS}.get(what, WINDOWS), what)
        if what == "images":
            _images(run, effect, numbers)
        elif what == "texts":
            _texts(run, effect, numbers)
        else:
            _text(run, effect, numbers, means)


def _by_token(run: AblationRun, effect: PredictionEffects) -> None:
    """Which tokens, or classes of images, lose most in sum."""
    classes = run.model.predicts_class
    unit = sample_unit(run.model.modality)
    harms = harm_by_token(effect, lambda one: in_words(class_name(run.model, one)))
    st.markdown(
        f"**By {'class' if classes else 'token'}.** Most loss in sum: {as_markdown(harm_sentence(harms, unit))}"
    )
    rows = [
        {
            "class" if classes else "token": harm.token,
            unit: harm.predictions,
            "mean change, nats": harm.mean,
            "sum, nats": harm.total,
            "share of all harm": harm.share,
        }
        for harm in harms[:TOKENS]
        if harm.total > 0
    ]
    if rows:
        digits = {"mean change, nats": "+.3f", "sum, nats": "+.3f", "share of all harm": ".1%"}
        with st.expander(f"The {'classes' if classes else 'tokens'} that lose most in sum"):
            st.dataframe(with_digits(pd.DataFrame(rows), digits), hide_index=True, width="stretch", row_height=28)
            st.caption("Harm: the changes of loss, summed over the tokens whose sum is above 0.")


def _tenth(effect: PredictionEffects) -> float:
    """The share of the total increase in loss that comes from the tenth of the predictions with the largest increases."""
    losses = np.sort(np.clip(np.nan_to_num(effect.change), 0, None))[::-1]
    return float(losses[: max(1, len(losses) // 10)].sum() / max(losses.sum(), 1e-12))


def _paged(effect: PredictionEffects, size: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The sequences on the chosen page, with their mean changes."""
    order_column, page_column = st.columns([4, 1], vertical_alignment="bottom")
    name = {"images": "Images", "texts": "Texts"}.get(what, "Windows of text")
    order = order_column.segmented_control(
        name, ORDERS, default=ORDERS[0], key="effect order", required=True,
        help="Sorted by the mean change of loss per window of text, or by the image's change.",
    )  # fmt: skip
    numbers, means = effect.by_sequence()
    if order == ORDERS[1]:
        numbers, means = numbers[::-1], means[::-1]
    elif order == ORDERS[2]:
        sort = np.argsort(numbers)
        numbers, means = numbers[sort], means[sort]
    pages = -(-len(numbers) // size)
    page = page_column.number_input(
        f"Page (of {pages})", 1, pages, 1, key=f"effect page of {pages}", help=f"{size} {name.lower()} per page."
    )
    here = slice((page - 1) * size, page * size)
    return numbers[here], means[here]


def _text(run: AblationRun, effect: PredictionEffects, numbers: np.ndarray, means: np.ndarray) -> None:
    full = full_scale(effect.change)
    st.html(scale_legend(full))
    predicted = _predict(run, numbers)
    places = np.concatenate([effect.of_sequence(number) for number in numbers])
    rows = dict(zip(places.tolist(), range(len(places)), strict=True))
    for number, mean in zip(numbers.tolist(), means, strict=True):
        _, texts = per_prediction.window_texts(run.model, run.data, number)
        tokens = [ShadedToken(text) for text in texts]
        for index in effect.of_sequence(number).tolist():
            position = int(effect.position[index])
            text = texts[position]
            if run.model.modality == "masked":  # the window shows the mask; the hidden token is what is predicted
                text = f"⟨{run.model.tokenizer.decode([int(effect.target[index])]).strip()}⟩"
            tokens[position] = ShadedToken(
                text, float(effect.change[index]), _details(run, effect, index, predicted, rows)
            )
        st.caption(f"Window {number + 1}: {signed(float(mean), '+.4f')} nats per prediction")
        st.html(shaded_text(by_character(tokens, texts), full))
    if run.model.modality == "masked":
        st.caption("Only masked tokens are predicted and shaded; ⟨…⟩ shows the token that was masked.")
    _worst_tokens(run, effect)


def by_character(tokens: Sequence[ShadedToken], texts: Sequence[str]) -> list[ShadedToken]:
    """One box for a character that several tokens write: its change of loss is the sum of theirs.

    Args:
        tokens: of causal text one by one as `texts` has them; a masked window may show other words in their place.
    """
    found = []
    for places in per_prediction.characters(texts):
        parts = [tokens[place] for place in places]
        changes = [part.change for part in parts if part.change is not None]
        if len(parts) == 1 or [part.text for part in parts] != [texts[place] for place in places]:
            found += parts
            continue
        details = "\n".join(f"{part.text.strip()}: {part.details}" for part in parts if part.details)
        text = per_prediction.written_together([part.text for part in parts])
        found.append(ShadedToken(text, sum(changes) if changes else None, details))
    return found


def _predict(run: AblationRun, sequences: np.ndarray, positions: np.ndarray | None = None) -> Predicted:
    """What the model predicts there before and after; says so while another computation is using it."""
    places = None if positions is None else positions.tolist()
    with ui.model_turn(run.model):
        return per_prediction.predict(run, run.spec.methods[0], sequences.tolist(), places)


def _details(
    run: AblationRun, effect: PredictionEffects, index: int, predicted: Predicted, rows: dict[int, int]
) -> str:
    row = rows[index]
    lines = [
        f"loss {effect.before[index]:.3f} → {effect.after[index]:.3f} nats ({signed(float(effect.change[index]), '+.3f')})"
    ]
    for words, ids, shares in (
        ("before", predicted.before, predicted.before_share),
        ("after", predicted.after, predicted.after_share),
    ):
        named = (f"{class_name(run.model, one)} {share:.1%}" for one, share in zip(ids[row], shares[row], strict=True))
        lines.append(f"{words}: {', '.join(named)}")
    return "\n".join(lines)


def _worst_tokens(run: AblationRun, effect: PredictionEffects) -> None:
    st.markdown("**Largest increases in loss, in context**")
    worst = effect.worst_first()[:TOKENS]
    predicted = _predict(run, effect.sequence[worst], effect.position[worst])
    rows = []
    for row, index in enumerate(worst.tolist()):
        ids = run.data.rows([int(effect.sequence[index])]).inputs["input_ids"][0]
        position = int(effect.position[index])
        before = per_prediction.token_texts(run.model, ids[max(0, position - _CONTEXT) : position].tolist())
        rows.append(
            {
                "token": class_name(run.model, int(effect.target[index])),
                "preceding text": per_prediction.joined(before).replace("\n", "⏎"),
                "change, nats": effect.change[index],
                "loss before": effect.before[index],
                "loss after": effect.after[index],
                "top guess before": class_name(run.model, predicted.before[row, 0]),
                "top guess after": class_name(run.model, predicted.after[row, 0]),
                "probability before": float(predicted.target_before[row]),
                "probability after": float(predicted.target_after[row]),
            }
        )
    st.dataframe(
        with_digits(pd.DataFrame(rows), _DIGITS), column_config=_SHORT, hide_index=True, width="stretch", row_height=28
    )


def _images(run: AblationRun, effect: PredictionEffects, numbers: np.ndarray) -> None:
    full = full_scale(effect.change)
    st.html(scale_legend(full, "the image's loss"))
    predicted = _predict(run, numbers)
    pictures = as_seen(run.model, _pixels(run.data, numbers))
    cards = []
    for row, (number, picture) in enumerate(zip(numbers.tolist(), pictures, strict=True)):
        index = int(effect.of_sequence(number)[0])
        target, before, after = int(effect.target[index]), int(predicted.before[row, 0]), int(predicted.after[row, 0])
        cards.append(
            Card(
                picture,
                class_name(run.model, target),
                f"{class_name(run.model, before)} {predicted.before_share[row, 0]:.0%}",
                f"{class_name(run.model, after)} {predicted.after_share[row, 0]:.0%}",
                float(effect.change[index]),
                before == target,
                after == target,
            )
        )
    st.html(gallery(cards, full))
    st.caption(
        "Each image as the model receives it: its class, then the most probable class before → after with its probability "
        "(✓ right, ✗ wrong), and the change of its loss."
    )


def _texts(run: AblationRun, effect: PredictionEffects, numbers: np.ndarray) -> None:
    """Whole texts: a row each."""
    predicted = _predict(run, numbers)
    rows = []
    for row, number in enumerate(numbers.tolist()):
        index = int(effect.of_sequence(number)[0])
        inputs = run.data.rows([number]).inputs
        ids = inputs["input_ids"][0][inputs["attention_mask"][0].bool()].tolist()
        rows.append(
            {
                "text": run.model.tokenizer.decode(ids, skip_special_tokens=True),
                "class": class_name(run.model, int(effect.target[index])),
                "class before": class_name(run.model, int(predicted.before[row, 0])),
                "class after": class_name(run.model, int(predicted.after[row, 0])),
                "probability before": float(predicted.target_before[row]),
                "probability after": float(predicted.target_after[row]),
                "change, nats": float(effect.change[index]),
            }
        )
    st.dataframe(with_digits(pd.DataFrame(rows), _DIGITS), hide_index=True, width="stretch")
    st.caption(
        "Each text with its class, the most probable class before and after, and the probability of its own class."
    )


def _pixels(data: Data, numbers: np.ndarray) -> np.ndarray:
    (pixels,) = data.rows(numbers.tolist()).inputs.values()
    return pixels.float().numpy()
