"""Your own prompt or image: what the model predicts before and after, and what it would write."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from ablation_core.data import user_input
from ablation_core.experiments.predictions.per_prediction import class_name, token_texts
from ablation_core.experiments.spec import AblationSpec
from ablation_core.experiments.user_input import Answer, UserInputRun
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.charts import user_input_charts
from ablation_core.report.charts.looks import mark_of
from ablation_core.report.numbers import number
from ablation_core.report.token_html import ShadedToken, full_scale, scale_legend, shaded_text
from ablation_core.server.turns import in_turns
from ablation_core.ui import page
from ablation_core.ui.ablation import job as ablation_job
from ablation_core.ui.own_input import TYPED, image_box, prompt_box
from ablation_core.ui.shared import SEED, shared_answers
from ablation_core.ui.sidebar.view import View
from ablation_core.ui.token_view import by_character
from ablation_core.ui.widgets import draw, with_digits

_SHOWN = 6


@st.fragment
def show_user_input(view: View, later: bool = False) -> None:
    """The input box, and the predictions of the clean and of every ablated model.

    Args:
        later: whether the page is still measuring: the example prompt is then answered afterwards.
    """
    own_words = {"vision": "Your own image", "text-classification": "Your own text"}
    st.subheader(own_words.get(view.model.modality, "Your own prompt"), anchor=False)
    with page.show_errors():
        own = image_box(view) if view.model.modality == "vision" else prompt_box(view)
        if own is None:
            return
        for note in own.notes:
            st.caption(note)
        if not view.selection.chosen:
            st.caption("No neurons are selected, so before and after are identical.")
        kept, run = kept_answers(view, own), partial(own_run, view, own)
        if later and kept.answer is None and TYPED not in st.session_state and view.info.modality != "vision":
            st.caption("Answered once the results above are measured; change the prompt to have it answered now.")
            return
        if kept.answer is None:
            with page.model_turn(view.model):
                kept.answer = run().answer()
        _probabilities(view, own, kept.answer)
        if view.model.modality == "causal":
            _continuations(view, kept, run)
            _own_tokens(view, own, kept, run)


@dataclass
class _Answers:
    """The results for one input, as far as they are computed; shared by all sessions of the server."""

    answer: Answer | None = None
    written: dict[str, list[int]] | None = None
    losses: tuple[np.ndarray, dict[str, np.ndarray]] | None = None


def kept_answers(view: View, own: user_input.UserInput) -> _Answers:
    """The answers so far, found by what decides them; no model is kept with them."""
    kept = shared_answers()
    methods = tuple(method.name for method in ablation_job.compared_methods(view, own.data))
    key = (
        view.model.fingerprint,
        view.statistics.digest,
        str(view.selection),
        view.bins,
        own.data.fingerprint,
        methods,
    )
    return kept.keep(key, kept.get(key) or _Answers())


def own_run(view: View, own: user_input.UserInput) -> UserInputRun:
    methods = (
        tuple(m for m in ablation_job.compared_methods(view, own.data) if not m.learned)
        if view.selection.chosen
        else ()
    )
    return UserInputRun(view.model, own, AblationSpec(view.selection, methods, view.bins, SEED), view.statistics)


def _probabilities(view: View, own: user_input.UserInput, answer: Answer) -> None:
    """For each predicted position, the most probable tokens or classes before the ablation and by each method."""
    for place in range(min(len(answer.before), 4)):
        if not view.model.predicts_class:
            gap = f"gap {place + 1}" if len(answer.before) > 1 else "the gap"
            st.markdown(
                "**What comes next**, most probable first"
                if view.model.modality == "causal"
                else f"**What fills {gap}**"
            )
        frame = probability_frame(view, answer, place)
        kinds = tuple(answer.after)
        draw(
            user_input_charts.probabilities,
            frame[frame["kind"] == "clean"],
            frame[frame["kind"] != "clean"],
            kinds=kinds,
            variant=len(frame["name"].unique()),
            key=f"own answer {place}",
            alt="Probabilities of the most probable answers: clean as bars, each ablation as a mark.",
        )
        _table(frame, place)
    if len(answer.before) > 4:
        st.caption(f"The first 4 of {len(answer.before)} gaps are shown.")
    shifts = {name: float(np.abs(after - answer.before).sum(-1).mean() / 2) for name, after in answer.after.items()}
    if shifts:
        most = max(shifts, key=lambda name: shifts[name])
        st.caption(
            f"Bars: the clean model; marks: ablated. One example, not a measurement: it has no interval. The distribution "
            f"changes most by {most}: {shifts[most]:.1%} of the probability mass moves."
        )


def probability_frame(view: View, answer: Answer, place: int) -> pd.DataFrame:
    """One row per kind (clean and methods) and answer: the clean model's top ones, then the methods' top ones."""
    before = answer.before[place]
    chosen = list(np.argsort(-before, kind="stable")[:_SHOWN])
    for after in answer.after.values():
        if (first := int(after[place].argmax())) not in chosen:
            chosen.append(first)
    names = [class_name(view.model, one) for one in chosen]
    doubles = {name for name in names if names.count(name) > 1}
    kind = "class" if view.model.predicts_class else "token"
    names = [f"{name} ({kind} {one})" if name in doubles else name for name, one in zip(names, chosen, strict=True)]
    kinds = {"clean": before} | {name: after[place] for name, after in answer.after.items()}
    return pd.DataFrame(
        [
            {"kind": kind, "name": name, "order": order, "share": float(shares[one])}
            for kind, shares in kinds.items()
            for order, (name, one) in enumerate(zip(names, chosen, strict=True))
        ]
    )


def _table(frame: pd.DataFrame, place: int) -> None:
    with st.expander("As a table", key=f"own table {place}"):
        wide = frame.pivot(index=["order", "name"], columns="kind", values="share").reset_index(
            level="order", drop=True
        )
        wide = wide[list(dict.fromkeys(frame["kind"]))]
        st.dataframe(with_digits(wide, dict.fromkeys(wide, ".2%")), width="stretch", row_height=28)


def _continuations(view: View, kept: _Answers, run: Callable[[], UserInputRun]) -> None:
    """What each model writes, with the first token that differs marked; grows while one watches."""
    st.markdown(f"**Continuation**: {user_input.NEW_TOKENS} tokens, always the most probable one")
    place = st.empty()
    if kept.written is None:
        written: dict[str, list[int]] = {}
        with page.model_turn(view.model):  # what is put in may be written by the model
            steps = run().continuations()
        for written in in_turns(view.model, steps, place.caption):
            place.html(continuation_html(view.model, written))  # also where a change of mind ends this
        kept.written = written
    place.html(continuation_html(view.model, kept.written))


def continuation_html(model: LoadedModel, written: dict[str, list[int]]) -> str:
    """A line for the clean model and each method; what differs from the clean text is bold."""
    lines = []
    clean = written.get("clean", [])
    for kind, tokens in written.items():
        same = next((place for place, pair in enumerate(zip(tokens, clean, strict=False)) if len(set(pair)) > 1), None)
        same = min(len(tokens), len(clean)) if same is None else same
        shared, own = model.tokenizer.decode(tokens[:same]).rstrip("\ufffd"), model.tokenizer.decode(tokens)
        shared = shared if own.startswith(shared) else ""
        rest = own[len(shared) :]
        colour = "inherit" if kind == "clean" else mark_of(kind).color
        text = f"{html.escape(shared)}<b>{html.escape(rest)}</b>".replace("\n", "<span style='opacity:.5'>⏎</span> ")
        lines.append(
            f'<div style="display:flex;gap:.8em;padding:.15em 0"><span style="flex:0 0 9.5em;border-left:4px solid {colour};'
            f'padding-left:.6em">{html.escape(kind)}</span><span style="font-family:monospace;font-size:.86rem;'
            f'overflow-wrap:anywhere">{text or "(the text ends here)"}</span></div>'
        )
    return "".join(lines)


def _own_tokens(view: View, own: user_input.UserInput, kept: _Answers, run: Callable[[], UserInputRun]) -> None:
    """The prompt's tokens, shaded by the chosen method's effect on each."""
    ids = own.asked.inputs["input_ids"][0].tolist()
    if len(ids) < 2 or not view.selection.chosen:
        return
    if kept.losses is None:
        with page.model_turn(view.model):
            kept.losses = run().losses()
    before, after = kept.losses
    if view.method not in after:
        return
    change = after[view.method] - before
    full = full_scale(change)
    texts = token_texts(view.model, ids)
    tokens = [ShadedToken(texts[0])]
    for text, one, old, new in zip(texts[1:], change, before, after[view.method], strict=True):
        tokens.append(ShadedToken(text, float(one), f"loss {old:.3f} → {new:.3f} nats ({number(float(one), '+.3f')})"))
    st.markdown(f"**Your prompt**, each token shaded by the effect of {view.method} on its prediction")
    st.html(scale_legend(full))
    st.html(shaded_text(by_character(tokens, texts), full))
