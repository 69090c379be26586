"""Where it hurts: the text shaded token by token, or the images, the most harmed first."""

import numpy as np
import pandas as pd
import streamlit as st

from ablation_core.data.dataset import Data
from ablation_core.experiments import per_prediction as harming
from ablation_core.experiments.ablation import AblationRun, AblationSpec
from ablation_core.experiments.per_prediction import Predicted, PredictionEffects, class_name
from ablation_core.methods.registry import METHODS
from ablation_core.report.token_html import Card, ShadedToken, as_seen, full_scale, gallery, scale_legend, shaded_text
from ablation_core.ui import page as ui
from ablation_core.ui.ablation_job import AblationProgress
from ablation_core.ui.shared import SEED, shared_data
from ablation_core.ui.sidebar import View

WINDOWS, IMAGES, TOKENS = 2, 12, 15
ORDERS = ("most harmed first", "most helped first", "in order")
_CONTEXT = 8


@st.fragment
def show_affected_tokens(view: View, outcome: AblationProgress) -> None:
    """The harm of the view's method, a page of sequences at a time."""
    harm = outcome.harms.get(view.method)
    st.subheader("Where it hurts", anchor=False)
    if not outcome.whole:
        st.caption("Shown here once all predictions are measured: each token, or image, by its own change of loss.")
        return
    if harm is None or not view.selection.chosen:
        st.caption("Nothing is ablated, so nothing hurts." if harm else f"{view.method} was not measured here.")
        return
    with ui.show_errors():
        data = shared_data(view.model, view.data_ref, view.predictions, "evaluation")
        spec = AblationSpec(view.selection, (METHODS[view.method],), view.bins, SEED)
        run = AblationRun(view.model, data, spec, view.statistics, learned=outcome.learned)
        hurt, helped = (int((sign * harm.change > 0).sum()) for sign in (1, -1))
        what = "images" if view.model.modality == "vision" else "tokens"
        st.markdown(
            f"By **{view.method}**: {hurt:,} of {len(harm.change):,} predicted {what} lose, {helped:,} gain. "
            f"The most harmed tenth makes up {_tenth(harm):.0%} of all that is lost."
        )
        numbers, means = _paged(harm, IMAGES if what == "images" else WINDOWS, what)
        if what == "images":
            _images(run, harm, numbers)
        else:
            _text(run, harm, numbers, means)


def _tenth(harm: PredictionEffects) -> float:
    """The share of all increases of loss that the tenth of the predictions with the greatest ones holds."""
    losses = np.sort(np.clip(np.nan_to_num(harm.change), 0, None))[::-1]
    return float(losses[: max(1, len(losses) // 10)].sum() / max(losses.sum(), 1e-12))


def _paged(harm: PredictionEffects, size: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The sequences on the chosen page, with their mean changes."""
    order_column, page_column = st.columns([4, 1], vertical_alignment="bottom")
    name = "Images" if what == "images" else "Windows of text"
    order = order_column.segmented_control(
        name, ORDERS, default=ORDERS[0], key="harm order", required=True,
        help="Sorted by the mean change of loss of the window's predictions, or the image's change.",
    )  # fmt: skip
    numbers, means = harm.by_sequence()
    if order == ORDERS[1]:
        numbers, means = numbers[::-1], means[::-1]
    elif order == ORDERS[2]:
        sort = np.argsort(numbers)
        numbers, means = numbers[sort], means[sort]
    pages = -(-len(numbers) // size)
    page = page_column.number_input(
        f"Page of {pages}", 1, pages, 1, key=f"harm page of {pages}", help=f"{size} {name.lower()} a page."
    )
    here = slice((page - 1) * size, page * size)
    return numbers[here], means[here]


def _text(run: AblationRun, harm: PredictionEffects, numbers: np.ndarray, means: np.ndarray) -> None:
    full = full_scale(harm.change)
    st.html(scale_legend(full))
    predicted = _predict(run, numbers)
    places = np.concatenate([harm.of_sequence(number) for number in numbers])
    rows = dict(zip(places.tolist(), range(len(places)), strict=True))
    for number, mean in zip(numbers.tolist(), means, strict=True):
        _, texts = harming.window_texts(run.model, run.data, number)
        tokens = [ShadedToken(text) for text in texts]
        for index in harm.of_sequence(number).tolist():
            position = int(harm.position[index])
            text = texts[position]
            if run.model.modality == "masked":  # the window shows the mask; what stood there is what is predicted
                text = f"⟨{run.model.tokenizer.decode([int(harm.target[index])]).strip()}⟩"
            tokens[position] = ShadedToken(text, float(harm.change[index]), _tooltip(run, harm, index, predicted, rows))
        st.caption(f"Window {number + 1}: {mean:+.4f} nats a prediction")
        st.html(shaded_text(tokens, full))
    if run.model.modality == "masked":
        st.caption("Only the chosen tokens are predicted and shaded; ⟨…⟩ shows what stood there before it was hidden.")
    _worst_tokens(run, harm)


def _predict(run: AblationRun, sequences: np.ndarray, positions: np.ndarray | None = None) -> Predicted:
    """What the model predicts there before and after; where somebody else is running it, that is said meanwhile."""
    places = None if positions is None else positions.tolist()
    with ui.model_turn(run.model):
        return harming.predict(run, run.spec.methods[0], sequences.tolist(), places)


def _tooltip(run: AblationRun, harm: PredictionEffects, index: int, predicted: Predicted, rows: dict[int, int]) -> str:
    row = rows[index]
    lines = [f"loss {harm.before[index]:.3f} → {harm.after[index]:.3f} nats ({harm.change[index]:+.3f})"]
    for words, ids, shares in (
        ("before", predicted.before, predicted.before_share),
        ("after", predicted.after, predicted.after_share),
    ):
        named = (f"{class_name(run.model, one)} {share:.1%}" for one, share in zip(ids[row], shares[row], strict=True))
        lines.append(f"{words}: {', '.join(named)}")
    return "\n".join(lines)


def _worst_tokens(run: AblationRun, harm: PredictionEffects) -> None:
    st.markdown("**The most harmed tokens, in context**")
    worst = harm.worst_first()[:TOKENS]
    predicted = _predict(run, harm.sequence[worst], harm.position[worst])
    rows = []
    for row, index in enumerate(worst.tolist()):
        ids = run.data.rows([int(harm.sequence[index])]).inputs["input_ids"][0]
        position = int(harm.position[index])
        context = "".join(harming.token_texts(run.model, ids[max(0, position - _CONTEXT) : position].tolist()))
        rows.append(
            {
                "token": class_name(run.model, int(harm.target[index])),
                "after the text": context.replace("\n", "⏎"),
                "change, nats": harm.change[index],
                "loss before": harm.before[index],
                "loss after": harm.after[index],
                "first before": class_name(run.model, predicted.before[row, 0]),
                "first after": class_name(run.model, predicted.after[row, 0]),
                "probability before": float(predicted.target_before[row]),
                "probability after": float(predicted.target_after[row]),
            }
        )
    numbers = {
        name: st.column_config.NumberColumn(format="%.3f") for name in ("change, nats", "loss before", "loss after")
    }
    shares = {
        name: st.column_config.NumberColumn(format="percent") for name in ("probability before", "probability after")
    }
    st.dataframe(pd.DataFrame(rows), column_config=numbers | shares, hide_index=True, width="stretch", row_height=28)


def _images(run: AblationRun, harm: PredictionEffects, numbers: np.ndarray) -> None:
    full = full_scale(harm.change)
    st.html(
        scale_legend(full).replace("each token's own loss; point at a token for what was predicted", "the image's loss")
    )
    predicted = _predict(run, numbers)
    pictures = as_seen(run.model, _pixels(run.data, numbers))
    cards = []
    for row, (number, picture) in enumerate(zip(numbers.tolist(), pictures, strict=True)):
        index = int(harm.of_sequence(number)[0])
        target, before, after = int(harm.target[index]), int(predicted.before[row, 0]), int(predicted.after[row, 0])
        cards.append(
            Card(
                picture,
                class_name(run.model, target),
                f"{class_name(run.model, before)} {predicted.before_share[row, 0]:.0%}",
                f"{class_name(run.model, after)} {predicted.after_share[row, 0]:.0%}",
                float(harm.change[index]),
                before == target,
                after == target,
            )
        )
    st.html(gallery(cards, full))
    st.caption(
        "Each image as the model is given it: its class, then the most probable class before → after with its probability "
        "(✓ right, ✗ wrong), and the change of its loss."
    )


def _pixels(data: Data, numbers: np.ndarray) -> np.ndarray:
    (pixels,) = data.rows(numbers.tolist()).inputs.values()
    return pixels.float().numpy()
