"""The card "What it writes": tokens or classes that it promotes and suppresses, and its direct beside its total effect."""

from __future__ import annotations

import streamlit as st

from ablation_core.report.heads.frames import head_scatter_frame
from ablation_core.report.heads.html import promoted
from ablation_core.report.numbers import interval_text
from ablation_core.report.white_space import white_space_words
from ablation_core.ui.glance import inputs
from ablation_core.ui.glance.effects import effects_of
from ablation_core.ui.glance.kind import draw_scatter
from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.heads.computed import computed
from ablation_core.ui.widgets import single_choice


def show_writing(glance: Glance) -> None:
    from ablation_core.heads.direct import direct_effects
    from ablation_core.heads.writes import writes

    view, data = glance.view, inputs.evaluation_data(glance)
    vision = view.info.modality == "vision"
    places = ("on the data, mean", "for the image above" if vision else "at the end of the prompt above")
    list_column, scatter_column = st.columns([1, 1], gap="large")
    with list_column:
        place = single_choice(
            st.segmented_control, "What it adds to the logits", places, default=places[0], key="written",
            help="What the head writes, through the final norm at its present scale and the unembedding.",
        )  # fmt: skip
        if place == places[0]:
            written = computed(
                glance.view, ("writes", glance.name, data.fingerprint), "Reading what it writes",
                lambda: writes(view.model, glance.name, data),
            )  # fmt: skip
        else:
            asked = inputs.chosen_input(glance).asked
            (ids,) = (asked.inputs[name] for name in asked.inputs if name != "attention_mask")
            key = ("writes", glance.name, hash(ids.numpy().tobytes()))
            position = -1 if view.info.modality != "masked" else int((asked.targets[0] >= 0).nonzero()[0])
            written = computed(
                glance.view, key, "Reading what it writes",
                lambda: writes(view.model, glance.name, own=asked, position=position),
            )  # fmt: skip
        st.html(promoted(written.promotes, written.suppresses))
        signs = white_space_words(one.text for one in (*written.promotes, *written.suppresses))
        st.caption(f"Logits, less the mean over all {'classes' if vision else 'tokens'}.{signs}")
    with scatter_column:
        direct = computed(
            glance.view, ("direct", data.fingerprint), "Reading every head's direct effect",
            lambda: direct_effects(view.model, data),
        )  # fmt: skip
        own = direct.interval(glance.head)
        st.markdown(
            f"**Direct effect**: {interval_text(own.mean, own.low, own.high, '+.3f')} logits of the right answer per prediction"
        )
        effects, words = effects_of(glance)
        if not effects:
            st.caption(words)
            return
        frame = head_scatter_frame(direct.heads, effects, glance.name)
        draw_scatter(glance, frame, "direct effect on the right answer's logit", words, "scatter direct")
        st.caption(
            "Heads with a large change of loss but little direct effect act through later layers; those with a direct "
            "effect but little change are repaired by them."
        )
