"""Text with each token shaded by its change of loss, and a gallery of images, as HTML. Knows no Streamlit.

Everything that comes from data is escaped. Colours are half transparent, over whatever the page's own colour is.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from ablation_core.models.loaded import LoadedModel
from ablation_core.report.charts.looks import HARM, HELP
from ablation_core.report.numbers import number

WORSE, BETTER = (tuple(int(one[at : at + 2], 16) for at in (1, 3, 5)) for one in (HARM, HELP))
_DEEPEST = 0.62


@dataclass(frozen=True)
class ShadedToken:
    """A token as it is written, its change of loss in nats (None: not predicted), and its details."""

    text: str
    change: float | None = None
    details: str = ""


def colour(change: float, full: float) -> str:
    """The CSS colour of a change of loss; `full` nats and more get the deepest."""
    if not np.isfinite(change):
        return f"rgba({WORSE[0]},{WORSE[1]},{WORSE[2]},0.75)"
    red, green, blue = WORSE if change > 0 else BETTER
    return f"rgba({red},{green},{blue},{_DEEPEST * min(1.0, abs(change) / full):.3f})"


def full_scale(changes: np.ndarray) -> float:
    """The change that gets the deepest colour: what 98% of the changes do not reach, in two digits."""
    finite = np.abs(changes[np.isfinite(changes)])
    return float(f"{max(np.quantile(finite, 0.98), 1e-4):.1g}") if len(finite) else 1.0


def shaded_text(tokens: Sequence[ShadedToken], full: float) -> str:
    """One block of text, each token in its colour with its details.

    The details are shown by `ui/page.js`, by click and keyboard: Tab reaches the first token, and arrows the others.
    """
    spans, reached = [], False
    for token in tokens:
        text = escape(token.text).replace("\n", "<span style='opacity:.7'>⏎</span>\n")
        if token.change is None:
            spans.append(f'<span style="opacity:.7">{text}</span>')
            continue
        details, label = (escape(one, quote=True).replace("\n", "&#10;") for one in (token.details, token.text))
        named = f'aria-label="{label}"' if token.text.strip() else 'aria-label="white space"'
        spans.append(
            f'<span role="button" tabindex="{-reached}" {named} data-details="{details}" '
            f'style="background:{colour(token.change, full)}">{text}</span>'
        )
        reached = True
    return (
        '<div style="font-family:monospace;font-size:.86rem;line-height:1.75;white-space:pre-wrap;'
        f'overflow-wrap:anywhere;border-left:3px solid #80808055;padding-left:.8em">{"".join(spans)}</div>'
    )


def scale_legend(full: float, what: str = "each token's loss; click a token for its predictions") -> str:
    """The colours with what they stand for."""
    steps = "".join(
        f'<span style="display:inline-block;width:22px;height:14px;background:{colour(share * full, full)}"></span>'
        for share in (-1, -0.66, -0.33, 0, 0.33, 0.66, 1)
    )
    return (
        f'<div style="font-size:.82rem;opacity:.9">loss −{full:g} nats or lower &nbsp;{steps}&nbsp; +{full:g} nats or '
        f"higher &nbsp;·&nbsp; change of {what}</div>"
    )


@dataclass(frozen=True)
class Card:
    """An image with its class, what was predicted before and after, and its change of loss in nats."""

    picture: Image.Image
    label: str
    before: str
    after: str
    change: float
    right_before: bool
    right_after: bool


def gallery(cards: Sequence[Card], full: float) -> str:
    """The images as a grid that fits any width."""
    cells = []
    for card in cards:
        marks = ["✓" if right else "✗" for right in (card.right_before, card.right_after)]
        what = f"{card.label}: {card.before} {marks[0]} before, {card.after} {marks[1]} after, {number(card.change, '+.3f')} nats"
        cells.append(
            f'<figure style="margin:0;padding:8px;border-radius:8px;border:1px solid #80808040;'
            f'background:{colour(card.change, full)}"><img alt="{escape(what, quote=True)}" '
            f'src="{data_address(card.picture)}" style="width:100%;image-rendering:pixelated;border-radius:4px">'
            f'<figcaption style="font-size:.8rem;line-height:1.4;overflow-wrap:anywhere"><b>{escape(card.label)}</b><br>'
            f"{escape(card.before)} {marks[0]} → {escape(card.after)} {marks[1]}<br>"
            f"<b>{number(card.change, '+.3f')}</b> nats</figcaption></figure>"
        )
    return (
        '<div style="display:grid;grid-template-columns:repeat(auto-fill,minmax(135px,1fr));gap:10px">'
        f"{''.join(cells)}</div>"
    )


def data_address(picture: Image.Image) -> str:
    """The picture as a PNG inside an address, so that nothing is fetched."""
    return "data:image/png;base64," + base64.b64encode(as_png(picture)).decode()


def as_png(picture: Image.Image) -> bytes:
    """The content of its file."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def as_seen(model: LoadedModel, pixels: np.ndarray) -> list[Image.Image]:
    """Pictures of what a vision model receives, with its normalisation undone.

    Args:
        pixels: float (images, channels, height, width).
    """
    black, white = (model.to_pixels(Image.new("RGB", (8, 8), tone)).numpy() for tone in ("black", "white"))
    low, high = (tones.mean(axis=(1, 2))[:, None, None] for tones in (black, white))
    shades = ((pixels - low) / (high - low)).clip(0, 1) * 255
    shades = shades.round().astype(np.uint8)
    return [Image.fromarray(one[0] if len(one) == 1 else one[:3].transpose(1, 2, 0)) for one in shades]
