"""How replacement values, harm and help look on every page: colours, dashes, shapes, and ink that can be read on them.

Each kind of replacement value has one colour, dash and shape on every page. The colours are those of Okabe and Ito
(2008), which colour-blind readers can distinguish, shifted to a lightness that shows on white and on black.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt


@dataclass(frozen=True)
class Mark:
    """How a replacement value is drawn."""

    color: str
    dash: tuple[int, ...]
    shape: str


# Shapes with an area: marks are filled, and Vega's own stroke, arrow and wedge then hardly show. Within -1 to 1.
_X = "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z"
_HEXAGON = "M-1,0L-.5,-.87L.5,-.87L1,0L.5,.87L-.5,.87Z"
_STAR = "M0,-1.2L.3,-.3L1.2,0L.3,.3L0,1.2L-.3,.3L-1.2,0L-.3,-.3Z"
_HOURGLASS = "M-.9,-.9L.9,-.9L-.9,.9L.9,.9Z"
_BAR = "M-1,-.35L1,-.35L1,.35L-1,.35Z"
MARKS = {
    "zero": Mark("#808792", (2, 3), "square"),
    "mean": Mark("#2f86c9", (7, 4), "circle"),
    "median": Mark("#12a07c", (10, 3, 2, 3), "diamond"),
    "peak": Mark("#dd6315", (1, 0), "triangle-up"),
    "peak-own-range": Mark("#dd6315", (8, 2), "triangle-down"),
    "peak-whole-range": Mark("#dd6315", (2, 2), "triangle-left"),
    "peak-density": Mark("#dd6315", (6, 2, 2, 2), "triangle-right"),
    "peak-half-sample": Mark("#dd6315", (4, 4), "triangle"),
    "resample-dataset": Mark("#c56aa0", (4, 2, 1, 2), "cross"),
    "resample-characters": Mark("#c56aa0", (1, 2), _X),
    "resample-tokens": Mark("#c56aa0", (5, 2), _HEXAGON),
    "resample-generated": Mark("#c56aa0", (8, 3, 1, 3), _STAR),
    "resample-pixels": Mark("#c56aa0", (3, 3), _HOURGLASS),
    "optimal": Mark("#b08a00", (12, 2), _BAR),
}
# For kinds without a row of their own:
_OTHER_COLORS = ("#8a6fd1", "#a08a1c", "#3d8f3d", "#b0506a")
_OTHER_DASHES = ((6, 2), (3, 1), (9, 3), (1, 1))
_OTHER_SHAPES = (_BAR, _HEXAGON, _STAR, _X, _HOURGLASS)
BARS = "#8fa3b8"
CURVE = "#7048b6"
AGREE, DISAGREE = CURVE, "#b08a00"
GREY = "#808792"  # rules and bands
HARM, HELP = "#e34f45", "#5b7ce6"  # of no method, and light enough for black numbers on them (WCAG 2.1, 4.5 to 1)
DARK_INK, LIGHT_INK = "#10151b", "#e6ebf0"
PAGES = {False: "#ffffff", True: "#11161c"}  # what a chart stands on, by whether it is dark


def mark_of(kind: str) -> Mark:
    """How a kind is drawn; one without a row of its own gets one of a few looks, the same every time."""
    number = zlib.crc32(kind.encode())
    color, dash, shape = _OTHER_COLORS[number % 4], _OTHER_DASHES[number // 4 % 4], _OTHER_SHAPES[number // 16 % 5]
    return MARKS.get(kind) or Mark(color, dash, shape)


def mark_scales(names: Sequence[str]) -> dict:
    """Colour, dash and shape scales for these kinds of values."""
    marks = [mark_of(name) for name in names]
    return {
        "color": alt.Color("kind:N", scale=alt.Scale(domain=names, range=[m.color for m in marks]), legend=None),
        "strokeDash": alt.StrokeDash(
            "kind:N", scale=alt.Scale(domain=names, range=[list(m.dash) for m in marks]), legend=None
        ),
        "shape": alt.Shape("kind:N", scale=alt.Scale(domain=names, range=[m.shape for m in marks]), legend=None),
    }


def ink(dark: bool) -> str:
    """The text's colour, on a light or a dark page."""
    return LIGHT_INK if dark else DARK_INK


def faded(colour: str) -> str:
    """The colour to nothing, on white as on black."""
    return f"rgba({', '.join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))}, 0.03)"


def luminance(colour: str) -> float:
    """The relative luminance of `#rrggbb` (WCAG 2.1), from 0 to 1."""
    shades = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    light = [shade / 12.92 if shade <= 0.04045 else ((shade + 0.055) / 1.055) ** 2.4 for shade in shades]
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


def blend(colour: str, share: float, dark: bool) -> str:
    """A colour over the page that it is drawn on, that much of it."""
    pairs = ((int(one[place : place + 2], 16) for one in (PAGES[dark], colour)) for place in (1, 3, 5))
    return "#" + "".join(f"{round(below + share * (above - below)):02x}" for below, above in pairs)


def cell_ink(share: str, colour: str, dark: bool) -> str:
    """An expression: the ink, black or white, that is read best on cells of a share of a colour.

    Args:
        share: an expression, from 0 to 1.
    """
    inks = ["black" if luminance(blend(colour, k / 100, dark)) > 0.179 else "white" for k in range(101)]
    turn = next((k for k in range(101) if inks[k] != inks[0]), None)
    return f"'{inks[0]}'" if turn is None else f"({share}) < {turn / 100} ? '{inks[0]}' : '{inks[-1]}'"
