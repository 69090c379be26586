"""The box for your own prompt, text or image, with examples to click."""

import numpy as np
import streamlit as st
from PIL import Image, ImageOps

from ablation_core.data import user_input
from ablation_core.experiments.predictions.per_prediction import class_name
from ablation_core.report.token_html import as_png, as_seen
from ablation_core.ui.glance.examples import BOXES, PROMPTS
from ablation_core.ui.shared import shared_data
from ablation_core.ui.sidebar.view import View

_LOOKED_AT = 200  # of the data's images, for an example of each class
TYPED = "a prompt was typed"
LIGHT_BORDER, DARK_BORDER = 0.6, 0.3  # brightness from which and up to which a border counts as light, as dark
IMAGE_TYPES = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif")


def prompt_box(view: View) -> user_input.UserInput:
    """A prompt or a text of your own, with examples to click."""
    masked, classified = view.model.modality == "masked", view.model.predicts_class
    key = BOXES[view.model.modality]

    def take_example() -> None:
        if chosen := st.session_state["example prompt"]:
            st.session_state.update({key: chosen, TYPED: True})

    text = st.text_area(
        "Text" if classified else "Prompt",
        value=PROMPTS[view.model.modality][0],
        key=key,
        bind="query-params",
        on_change=lambda: st.session_state.update({TYPED: True}),
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


def image_box(view: View) -> user_input.UserInput | None:
    """An image of your own, or one of the data's; None while there is none."""
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
            own = user_input.image(view.model, as_png(ImageOps.invert(seen)), view.data_ref)
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
    return user_input.image(view.model, as_png(picture), view.data_ref)


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
