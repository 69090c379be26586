"""One input before and after, already answered, with others to click: a prompt, a text with a gap, or an image."""

from __future__ import annotations

import streamlit as st

from ablation_core.errors import AblationError, as_markdown
from ablation_core.report.heads.html import before_after
from ablation_core.report.white_space import white_space_words
from ablation_core.server.answers import TopAnswers, image_input
from ablation_core.ui import page
from ablation_core.ui.glance import inputs
from ablation_core.ui.glance.examples import BOXES, PROMPTS
from ablation_core.ui.glance.known import published_answer, published_images
from ablation_core.ui.glance.shown import Glance, slot
from ablation_core.ui.shared import AFTER_FIRST_PICTURE, is_loaded, let_loading_begin

_EXAMPLE = "example prompt"
_WORDS = {"vision": "An image", "text-classification": "A text"}


def show_prompt(glance: Glance) -> None:
    """The input and the most probable answers with and without the head."""
    ready, modality = is_loaded(glance.view.info.ref), glance.view.info.modality
    with slot("prompt"):
        asked_column, answer_column = st.columns([2, 3], gap="medium")
        asked = None
        with asked_column:
            st.markdown(f"**{_WORDS.get(modality, 'A prompt')}, before and after**")
            if modality != "vision":
                asked = _choose_text(glance)
            elif ready or published_images(glance.view):
                asked = image_input(_choose_image(glance))
        with answer_column:
            found = None if asked is None else published_answer(glance.view, glance.name, asked)
            if found is None and not ready:
                st.caption("The model is being loaded; its answers follow.")
                let_loading_begin(AFTER_FIRST_PICTURE)
                return
            try:
                _show_answer(glance, found or _computed(glance))
            except AblationError as error:
                st.error(as_markdown(error), icon="⚠️")


def _choose_text(glance: Glance) -> str:
    """The text in the box."""
    modality = glance.view.info.modality
    key, examples = BOXES[modality], PROMPTS[modality]

    def take() -> None:
        if chosen := st.session_state[_EXAMPLE]:
            st.session_state[key] = chosen
            st.session_state[_EXAMPLE] = None  # a button, not a state: the box may be typed in afterwards

    text = st.text_input(
        "Prompt with a gap: ___" if modality == "masked" else "Prompt",
        value=examples[0],
        key=key,
        bind="query-params",
        label_visibility="collapsed",
        help="Write ___ (three underscores) where a word is to be filled in." if modality == "masked" else None,
    )
    st.pills(
        "Other prompts",
        [one for one in examples if one != text],
        key=_EXAMPLE,
        wrap=True,
        on_change=take,
        label_visibility="collapsed",
        format_func=as_markdown,
    )
    return text


def _choose_image(glance: Glance) -> int:
    """The chosen image's number."""
    names = inputs.example_images(glance)
    picture_column, names_column = st.columns([1, 2])
    with names_column:
        st.pills(
            "Images of the data",
            list(names),
            default=next(iter(names)),
            key=inputs.IMAGE,
            format_func=lambda number: names[number],
            required=True,
            wrap=True,
            label_visibility="collapsed",
        )
    number = inputs.chosen_image(glance)
    seen = next((image.png for image in published_images(glance.view) if image.number == number), None)
    picture_column.image(seen or inputs.picture(glance, number), caption=names[number], width="stretch")
    return number


def _computed(glance: Glance) -> TopAnswers:
    from ablation_core.ui.user_input import kept_answers, own_run

    view, own = glance.view, inputs.chosen_input(glance)
    kept = kept_answers(view, own)
    if kept.answer is None:
        with page.model_turn(view.model):
            kept.answer = own_run(view, own).answer()
    return TopAnswers.of(view.model, kept.answer)


def _show_answer(glance: Glance, found: TopAnswers) -> None:
    method = (
        glance.view.method if glance.view.method in found.after else "mean"
    )  # learned constants are not for one input
    before, after = found.before, found.after[method]
    (first, share), (then, later) = before[0], after[0]
    words = (
        f"The first guess stays {first}: {share:.0%} → {later:.0%}."
        if first == then
        else f"The first guess changes from {first} ({share:.0%}) to {then} ({later:.0%})."
    )
    st.html(before_after(before, after, f"head {glance.name}", method))
    signs = white_space_words(text for text, _ in (*before, *after))
    st.caption(as_markdown(f"{words}{signs} One example, not a measurement."))
