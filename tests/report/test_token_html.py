"""Shaded text and galleries: escaped, in the right colours, and pictures as the model is given them."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from ablation_core import load_data
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.token_html import Card, ShadedToken, as_seen, colour, full_scale, gallery, shaded_text


def alpha(css: str) -> float:
    return float(re.search(r"([\d.]+)\)$", css)[1])


def test_a_text_with_markup_is_shown_as_text() -> None:
    page = shaded_text([ShadedToken("<script>alert(1)</script>", 0.5, 'a "quoted" <b>\nline'), ShadedToken("&amp;")], 1)
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'data-details="a &quot;quoted&quot; &lt;b&gt;&#10;line"' in page
    assert "&amp;amp;" in page


def test_a_gallery_escapes_names_too() -> None:
    picture = Image.new("L", (4, 4), 200)
    page = gallery([Card(picture, "<img src=x>", '"a"', "<b>", 0.25, True, False)], 1)
    assert "<img src=x>" not in page and "&lt;img src=x&gt;" in page and "<b>" not in page.split("figcaption")[1][:60]
    assert "✓" in page and "✗" in page and "+0.250" in page
    content = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert np.asarray(Image.open(io.BytesIO(content))).tolist() == np.full((4, 4), 200).tolist()


def test_colours_say_which_way_and_how_much() -> None:
    assert colour(1, 2).startswith("rgba(227") and colour(-1, 2).startswith("rgba(91")
    assert alpha(colour(1, 2)) == pytest.approx(alpha(colour(2, 2)) / 2, abs=0.001)
    assert colour(2, 2) == colour(50, 2), "beyond the scale all are the same"
    assert alpha(colour(0, 2)) == 0
    assert alpha(colour(float("nan"), 2)) > alpha(colour(2, 2)), "what is no number stands out"


def test_the_scale_ignores_a_few_extremes_and_what_is_no_number() -> None:
    changes = np.concatenate([np.linspace(-1, 1, 1001), [1e6, np.nan, np.inf]])
    assert full_scale(changes) == 1
    assert full_scale(np.zeros(5)) == 1e-4
    assert full_scale(np.array([np.nan])) == 1


def test_pictures_are_those_that_the_model_is_given(vit_mini: LoadedModel) -> None:
    data = load_data("fashion-mnist", vit_mini, predictions=4)
    pixels = data.rows([0, 1, 2]).inputs[vit_mini.input_name].numpy()
    for one, picture in zip(pixels, as_seen(vit_mini, pixels), strict=True):
        again = vit_mini.to_pixels(picture).numpy()
        assert abs(again - one).max() < 0.02, "fed back, the picture gives the same input but for 8-bit rounding"
