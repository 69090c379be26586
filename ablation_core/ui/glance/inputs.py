"""The one input of the first page that its prompt and its cards share: a typed text, or an image of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from ablation_core.ui.glance.examples import BOXES, PROMPTS
from ablation_core.ui.glance.known import published_images
from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.heads.computed import computed
from ablation_core.ui.shared import shared_data

if TYPE_CHECKING:
    from PIL import Image

    from ablation_core.data.dataset import Batch, Data
    from ablation_core.data.user_input import UserInput
    from ablation_core.models.loaded import LoadedModel

# As on the Ablate page, which keeps what is typed here:
IMAGE = "example image"  # the key of the chosen image's number
_MOST = 6  # images to choose from
_LOOKED_AT = 48  # images of the data from which they are taken


def evaluation_data(glance: Glance) -> Data:
    """The predictions that the view is scored on."""
    view = glance.view
    return shared_data(view.model, view.data_ref, view.predictions, "evaluation")


def chosen_input(glance: Glance) -> UserInput:
    """The text that stands in the box, or the chosen image, ready for the model.

    Raises:
        DataError: the text is none that the model takes.
    """
    from ablation_core.data import user_input

    view, modality = glance.view, glance.view.info.modality
    if modality != "vision":
        text = st.session_state.get(BOXES[modality])
        read = user_input.text if modality == "text-classification" else user_input.prompt
        return read(view.model, PROMPTS[modality][0] if text is None else text, view.data_ref)
    from ablation_core.report.token_html import as_png

    return user_input.image(view.model, as_png(picture(glance, chosen_image(glance))), view.data_ref)


def chosen_image(glance: Glance) -> int:
    """The chosen image's number in the data; the first example's until one is chosen."""
    number = st.session_state.get(IMAGE)
    examples = example_images(glance)
    return int(number) if number in examples else next(iter(examples))


def example_images(glance: Glance) -> dict[int, str]:
    """Images to choose from: number → class."""
    if published := published_images(glance.view):
        return {image.number: image.name for image in published}
    model, data = glance.view.model, evaluation_data(glance)
    shares = computed(
        glance.view, ("shares", data.fingerprint), "Looking for images", lambda: right_shares(model, first_rows(data))
    )
    return barely_right(model, data, shares)


def first_rows(data: Data) -> Batch:
    """The images that examples are taken from."""
    return data.rows(list(range(min(_LOOKED_AT, data.sequences))))


def barely_right(model: LoadedModel, data: Data, shares: np.ndarray) -> dict[int, str]:
    """Images of different classes, where one can be found those that the model barely gets right: number → class.

    What barely holds is what an ablation changes first.

    Args:
        shares: what `right_shares` has of the first rows.
    """
    from ablation_core.experiments.predictions.per_prediction import class_name

    targets = first_rows(data).targets.tolist()
    names = dict[int, str]()
    for number in sorted(range(len(shares)), key=lambda one: (shares[one] < 0.5, shares[one])):
        name = class_name(model, targets[number])
        if name not in names.values() and len(names) < _MOST:
            names[number] = name
    return names


def right_shares(model: LoadedModel, batch: Batch) -> np.ndarray:
    """The probability of each image's own class."""
    from ablation_core.engine import forward, scoring

    clean_pass = forward.record(model, batch)
    (found,) = scoring.log_probabilities(model, clean_pass, [clean_pass.outputs[-1]])
    shares: np.ndarray = found.exp().gather(1, batch.targets[:, None].cpu())[:, 0].numpy()
    return shares


def picture(glance: Glance, number: int) -> Image.Image:
    """An image of the data as the model receives it."""
    return pictures(glance, [number])[0]


def pictures(glance: Glance, numbers: list[int]) -> list[Image.Image]:
    from ablation_core.report.token_html import as_seen

    (pixels,) = evaluation_data(glance).rows(numbers).inputs.values()
    found: np.ndarray = pixels.float().numpy()
    return as_seen(glance.view.model, found)
