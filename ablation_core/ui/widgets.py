"""Small parts that many pages use: charts, single choices, links, files, and actions that end in one sentence.

Altair and pandas are imported with the first chart, so that no sidebar waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from ablation_core.engine.metrics import METRICS
from ablation_core.errors import AblationError, as_markdown
from ablation_core.report.numbers import number
from ablation_core.ui import boxes

if TYPE_CHECKING:
    import altair
    import pandas as pd
    from pandas.io.formats.style import Styler
    from streamlit.runtime.uploaded_file_manager import UploadedFile

BROUGHT = "to-"  # before the names of settings that a link brings from one page to another
_INKS = {False: "#48525e", True: "#b4bfca"}  # of axes and legends, on a light and a dark page
# What an address names only on the Distributions page. That opened first once: an address that names no page leads there.
DISTRIBUTIONS_ONLY = {"neuron", "list", "odd", "shown", "density", "log", "beside"}


def sentence_markdown(sentence: str) -> str:
    """A sentence of ours with names in it that people chose: bold stays, everything else is shown as it is."""
    return "**".join(as_markdown(part) for part in sentence.split("**"))


def dark_page() -> bool:
    """Whether the page is drawn in the dark theme."""
    return st.context.theme.type == "dark"


def draw(
    make: Callable[..., altair.TopLevelMixin],
    *frames: pd.DataFrame | None,
    alt: str,
    key: str | None = None,
    on_pick: Callable[[], Any] | None = None,
    variant: Hashable = (),
    height: int | None = None,
    **fixed: Hashable,
) -> None:
    """Draw `make(*frames, **fixed)` in a slot of its height, so that what stands below does not move when it appears.

    While key, structure and alternative text stay, the browser only exchanges the data of a chart and never draws it again.

    Args:
        height: in pixels, in place of the chart's own.
        alt: the alternative text.
        on_pick: called when a mark is clicked; the chart has a selection called `pick`, kept under `key`. See `picking`.
        variant: see `chart_cache.chart_spec`.
    """
    from ablation_core.report.charts.chart_cache import chart_spec

    _place(chart_spec(make, *frames, variant=variant, **fixed), alt, key, on_pick, height)


def draw_once(
    chart: altair.TopLevelMixin, *, alt: str, key: str | None = None, on_pick: Callable[[], Any] | None = None
) -> None:
    """Draw a chart whose structure no click draws again, with the looks and the slot of `draw`."""
    from ablation_core.report.charts.chart_cache import whole_spec

    _place(whole_spec(chart), alt, key, on_pick)


def _place(
    spec: dict[str, Any], alt: str, key: str | None, on_pick: Callable[[], Any] | None, height: int | None = None
) -> None:
    ink = {"labelColor": _INKS[dark_page()], "titleColor": _INKS[dark_page()]}
    # Streamlit's own greys are too pale to read, and it moves the first and the last label away from what they name.
    config = spec.get("config", {})
    axis = config.get("axis", {}) | ink | {"labelFlush": False}
    spec["config"] = config | {"axis": axis, "legend": config.get("legend", {}) | ink}
    if height is not None:
        spec |= {"height": height}
    if st.session_state.get("projector"):
        spec = _larger(spec)
    tall: Any = spec["height"] if isinstance(spec.get("height"), int) else "content"
    if on_pick is None:
        st.vega_lite_chart(spec=spec, alt=alt, key=key, height=tall)
        return
    with st.container(key=f"clickable {key}"):  # by keyboard, too: see `page.js`
        st.vega_lite_chart(spec=spec, alt=alt, key=key, on_select=on_pick, selection_mode="pick", height=tall)


def _larger(part: Any) -> Any:
    """A specification, or a part of one, with larger text and the height that it takes, but for its data."""
    if isinstance(part, list):
        return [_larger(one) for one in part]
    if not isinstance(part, dict):
        return part
    larger = {"fontSize", "labelFontSize", "titleFontSize", "labelLimit", "height", "step"}
    return {
        key: 1.35 * value
        if key in larger and isinstance(value, int | float)
        else value
        if key == "datasets"
        else _larger(value)
        for key, value in part.items()
    }


def as_tables(tables: dict[str, pd.DataFrame], key: str) -> None:
    """The data of a page's charts as tables, for readers who cannot see them or want the numbers."""
    with st.expander("Chart data", key=key):
        for tab, frame in zip(st.tabs(list(tables)), tables.values(), strict=True):
            tab.dataframe(frame, hide_index=True, width="stretch", height=240, row_height=28)


def with_digits(frame: pd.DataFrame, formats: Mapping[str, str]) -> Styler:
    """A table whose numbers are written as everywhere: digits in step, one minus sign. It sorts by the numbers themselves.

    Args:
        formats: column → format, as `numbers.number` takes it; columns that the table lacks are passed over.
    """
    written = {name: partial(number, form=form) for name, form in formats.items() if name in frame}
    return frame.style.format(written)


def single_choice(
    widget: Callable[..., Any], label: str, options: Sequence[str], *, default: str, key: str, help: str, **looks: Any
) -> str:
    """What is chosen in a row of pills or segments.

    Streamlit reads an empty value in the address (`?metric=`) as "none chosen", required or not; here it is the default.

    Args:
        widget: `st.pills`, `st.segmented_control` or a column's own.
        key: the widget's and the address's name for the choice.
    """
    chosen = widget(label, options, default=default, key=key, help=help, bind="query-params", required=True, **looks)
    return chosen or default


def choose_metric(
    widget: Callable[..., Any], names: Sequence[str], default: str, key: str, help: str, **looks: Any
) -> str:
    """The choice of a metric by its label; returns its name."""
    label = {name: METRICS[name].label for name in names}.__getitem__
    return single_choice(widget, "Metric", names, default=default, key=key, help=help, format_func=label, **looks)


def page_link(page: str, label: str, params: Mapping[str, str | list[str]], icon: str | None = "➡️") -> None:
    """A link that opens a page with these parameters in its address.

    A parameter that a widget of this page is bound to would be dropped on the way: it travels under another name.
    """
    if page == "app.py":
        params = {name: value for name, value in params.items() if name not in DISTRIBUTIONS_ONLY}
    here = {*st.session_state, *boxes.NAMES}
    params = {f"{BROUGHT if name in here else ''}{name}": value for name, value in params.items()}
    with suppress(StreamlitPageNotFoundError):  # a page run by itself has no others beside it
        st.page_link(page, label=label, icon=icon, query_params=params)


def copy_buttons(texts: dict[str, str]) -> None:
    """Buttons that copy at once, see `page.js`: label → text; an empty one stands for the page's address."""
    st.html(
        '<div style="display: flex; flex-wrap: wrap; gap: 1rem">'
        + "".join(
            f'<button class="copy" data-copy="{escape(text, quote=True)}">{label}</button>'
            for label, text in texts.items()
        )
        + "</div>",
        width="content",
    )


def run_action(action: Callable[[], str], at: str) -> None:
    """Do something and draw the page again, with the sentence it returns where `show_outcome(at)` stands; an error is shown
    where it happened."""
    try:
        sentence = action()
    except AblationError as error:
        st.error(as_markdown(error), icon="⚠️")
        return
    st.session_state[f"outcome at {at}"] = sentence
    st.rerun()


def file_box(
    label: str, key: str, action: Callable[[UploadedFile], str], most: int, help: str, type: str | None = None
) -> None:
    """An upload box whose file is read once, with the outcome below it.

    Args:
        action: reads the file, and returns a sentence about the outcome.
        most: bytes.
    """
    st.file_uploader(
        label, type, key=key, on_change=_read_once, args=(key, action), max_upload_size=most // 1_000_000, help=help
    )
    if outcome := st.session_state.pop(f"{key} outcome", None):
        done, sentence = outcome
        if done:
            st.success(sentence, icon="✅")
        else:
            st.error(as_markdown(sentence), icon="⚠️")


def _read_once(key: str, action: Callable[[UploadedFile], str]) -> None:
    """A file was chosen: read now, not again at every run while it stays in its box."""
    file = st.session_state[key]
    if file is not None:
        try:
            st.session_state[f"{key} outcome"] = (True, action(file))
        except AblationError as error:
            st.session_state[f"{key} outcome"] = (False, str(error))


def show_outcome(at: str) -> None:
    """The sentence that an action left for this place, beside its button."""
    if sentence := st.session_state.pop(f"outcome at {at}", ""):
        st.success(as_markdown(sentence), icon="✅")


def confirmed_delete(
    what: str, name: str, delete: Callable[[], None], *, disabled: bool = False, why: str = ""
) -> None:
    """A button that asks for confirmation before it deletes."""

    def deleted() -> str:
        delete()
        return f"Deleted: {name}."

    with st.popover(f"Delete this {what} …", disabled=disabled, help=why or None):
        st.markdown("This cannot be undone.")
        if st.button("Delete it", key=f"delete {what}", type="primary"):
            run_action(deleted, f"delete {what}")


def megabytes(count: int | None) -> str:
    """A size to read; empty where it is not known."""
    return "" if count is None else f"{count / 1e6:,.1f} MB"
