"""Your own prompt or image: what the model predicts before and after, and what it would write."""

import html
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image, ImageOps

from ablation_core.data import user_input
from ablation_core.experiments.ablation import AblationSpec
from ablation_core.experiments.per_prediction import class_name, token_texts
from ablation_core.experiments.user_input import Answer, UserInputRun
from ablation_core.models.loaded import LoadedModel
from ablation_core.report import user_input_charts
from ablation_core.report.charts import mark_of
from ablation_core.report.numbers import number
from ablation_core.report.token_html import ShadedToken, as_seen, full_scale, scale_legend, shaded_text
from ablation_core.server.turns import in_turns
from ablation_core.ui import ablation_job, page
from ablation_core.ui.glance.examples import PROMPTS
from ablation_core.ui.shared import SEED, shared_answers, shared_data
from ablation_core.ui.sidebar import View
from ablation_core.ui.token_view import by_character
from ablation_core.ui.widgets import draw, with_digits

_LOOKED_AT = 200  # of the data's images, for an example of each class
_TYPED = "a prompt was typed"
_SHOWN = 6
LIGHT_BORDER, DARK_BORDER = 0.6, 0.3  # brightness from which and up to which a border counts as light, as dark
IMAGE_TYPES = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif")


@st.fragment
def show_user_input(view: View, later: bool = False) -> None:
    """The input box, and the predictions of the clean and of every ablated model.

    Args:
        later: whether the page is still measuring: the example prompt is then answered afterwards.
    """
    own_words = {"vision": "Your own image", "text-classification": "Your own text"}
    st.subheader(own_words.get(view.model.modality, "Your own prompt"), anchor=False)
    with page.show_errors():
        own = _image(view) if view.model.modality == "vision" else _prompt(view)
        if own is None:
            return
        for note in own.notes:
            st.caption(note)
        if not view.selection.chosen:
            st.caption("No neurons are selected, so before and after are identical.")
        kept, run = kept_answers(view, own), partial(own_run, view, own)
        if later and kept.answer is None and _TYPED not in st.session_state and view.info.modality != "vision":
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


def _prompt(view: View) -> user_input.UserInput:
    masked, classified = view.model.modality == "masked", view.model.predicts_class
    key = "gaps" if masked else "own text" if classified else "prompt"

    def take_example() -> None:
        if chosen := st.session_state["example prompt"]:
            st.session_state.update({key: chosen, _TYPED: True})

    text = st.text_area(
        "Text" if classified else "Prompt",
        value=PROMPTS[view.model.modality][0],
        key=key,
        bind="query-params",
        on_change=lambda: st.session_state.update({_TYPED: True}),
        height=90,
        help="Write ___ (three underscores) where a word is to be filled in."
        if masked
        else f"Its class before and after. Classes: {_classes(view)}."
        if classified
        else "The model continues from here: its next-token predictions and its own continuation.",
    )
    st.pills(
        "Examples",
        PROMPTS[view.model.modality],
        key="example prompt",
        on_change=take_example,
        help="Click one to try it.",
    )
    read = user_input.text if classified else user_input.prompt
    return read(view.model, text or "", view.data_ref)


def _image(view: View) -> user_input.UserInput | None:
    file = st.file_uploader(
        "Image",
        IMAGE_TYPES,
        key="own image",
        max_upload_size=user_input.MOST_BYTES // 1_000_000,
        help="It stays on this machine and is discarded when the page is closed.",
    )
    if file is None:
        return _example_image(view)
    own = user_input.image(view.model, file.getvalue(), view.data_ref)
    seen = _as_seen(view, own)
    if _border(seen) > LIGHT_BORDER and _data_border(view) < DARK_BORDER:
        st.caption(
            "The model's own images have a dark border and this one a light one, so light and dark are exchanged."
        )
        if st.toggle("Invert", value=True, key="invert image", help="Exchange light and dark."):
            own = user_input.image(view.model, _png(ImageOps.invert(seen)), view.data_ref)
            seen = _as_seen(view, own)
    st.image(seen, caption="As the model receives it", width=160)
    return own


def _example_image(view: View) -> user_input.UserInput | None:
    """One of the data's own images, of a class that is clicked."""
    data = shared_data(view.model, view.data_ref, view.predictions, "evaluation")
    batch = data.rows(list(range(min(_LOOKED_AT, data.sequences))))
    first = {int(target): place for place, target in reversed(list(enumerate(batch.targets.tolist())))}
    names = {class_name(view.model, target): place for target, place in sorted(first.items())}
    name = st.pills("Examples", list(names)[:12], key="example image", help="Click a class for an image of it.")
    if name is None:
        st.caption(
            f"Upload an image, or click an example, to see how it is classified before and after. Classes: {_classes(view)}."
        )
        return None
    (pixels,) = data.rows([names[name]]).inputs.values()
    picture = as_seen(view.model, pixels.float().numpy())[0]
    st.image(picture, caption="As the model receives it", width=160)
    return user_input.image(view.model, _png(picture), view.data_ref)


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _as_seen(view: View, own: user_input.UserInput) -> Image.Image:
    return as_seen(view.model, own.asked.inputs[view.model.input_name].float().numpy())[0]


def _border(picture: Image.Image) -> float:
    """The mean brightness of a picture's border, 0 to 1."""
    shades = np.asarray(picture.convert("L"), dtype=float) / 255
    return float(np.concatenate([shades[0], shades[-1], shades[:, 0], shades[:, -1]]).mean())


def _data_border(view: View) -> float:
    """That of the data's images, of the first few."""
    data = shared_data(view.model, view.data_ref, view.predictions, "evaluation")
    (pixels,) = data.rows(list(range(min(16, data.sequences)))).inputs.values()
    return float(np.mean([_border(one) for one in as_seen(view.model, pixels.float().numpy())]))


def _classes(view: View) -> str:
    labels = view.model.labels
    return ", ".join(labels[:12]) + (f" and {len(labels) - 12:,} more" if len(labels) > 12 else "")


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
