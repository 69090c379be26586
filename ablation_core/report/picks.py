"""Which marks of a clickable chart are outlined. The browser answers a click at once; the page follows.

A chart's selection is called `pick`, and its frame has a column `picked`. A Vega-Lite selection keeps what was clicked in
a data set of its own, `pick_store`; no click outside a mark and no double click empties it.
"""

from collections.abc import Sequence

import altair as alt

_CLICKED = "vlSelectionTest('pick_store', datum)"
# What was clicked last; before the first click what the frame says.
ONE = f"length(data('pick_store')) ? {_CLICKED} : datum.picked"
# What the frame says, turned round by every click.
SEVERAL = f"!datum.picked != !{_CLICKED}"


def one_pick(fields: Sequence[str]) -> alt.Parameter:
    """A click picks one mark in place of the one before."""
    return alt.selection_point(name="pick", fields=list(fields), toggle=False, clear=False)


def several_picks(fields: Sequence[str]) -> alt.Parameter:
    """A click picks a mark, a second one puts it back; the selection holds the marks clicked an odd number of times."""
    return alt.selection_point(name="pick", fields=list(fields), toggle="true", clear=False)
