"""Parts of the Head map page: one head by every method, the instant estimate, whether the methods agree."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from ablation_core.engine.metrics import METRICS, estimated_metrics
from ablation_core.methods.registry import METHODS
from ablation_core.report import run_frames
from ablation_core.report.charts import axes, method_charts, run_charts
from ablation_core.report.numbers import is_points
from ablation_core.report.run_frames import HeadEstimates
from ablation_core.report.run_sentences import estimate_sentence
from ablation_core.report.sentences import floor_words
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.ui.boxes import put
from ablation_core.ui.picking import draw_choice
from ablation_core.ui.widgets import dark_page, draw, page_link

LARGEST = 20  # neurons listed


def show_head(result: SweepResult, head: str, term: str, method: str, metric: str) -> None:
    """One head by all methods, with links to it on other pages.

    Args:
        term: the head, or the one neuron of it that was asked for.
    """
    title = METRICS[metric].change_heading
    st.markdown(f"**Head {head} by every method**")
    frame = run_frames.method_frame(result, head, metric, method)
    if len(frame):
        floor = result.floor(method, metric)
        points = is_points(METRICS[metric].change_format)
        banded = bool(frame["floor_low"].notna().any())
        draw(
            method_charts.changes,
            frame,
            title=title,
            points=points,
            variant=(tuple(frame["kind"]), banded, method_charts.change_span(frame, points)),
            key="one head",
            alt="The change by each method with its 95% interval, without this head.",
        )
        band = f" Grey bands: noise floor, {floor_words(floor[2])} (layers in turn)." if floor else ""
        st.caption(f"95% intervals, paired.{band}")
    else:
        st.caption("Not measured yet.")
    page_link("app.py", f"Head {head} at a glance", {"select": head})
    page_link("pages/distributions.py", f"Distributions of {term}", {"neuron": term})
    page_link("pages/ablate.py", f"Ablate {term}", {"select": term})


def show_estimates(
    result: SweepResult,
    estimates: HeadEstimates,
    neurons: pd.DataFrame,
    head: str,
    term: str,
    method: str,
    metric: str,
    predictions: int,
    missing: str,
) -> None:
    """How far the instant estimate can be trusted, and its values for single neurons.

    Args:
        neurons: as `server.head_map.neuron_estimates` makes them.
        predictions: how many the estimate is based on.
        missing: why there is none, where there is none.
    """
    title, form = METRICS[metric].change_heading, METRICS[metric].cell_format
    st.subheader("Instant estimate", anchor=False)
    if not estimates:
        learned = f"The constants of {method} are learned for each head, so their effect cannot be estimated."
        st.caption(
            (learned if METHODS[method].learned else missing)
            if METRICS[metric].estimate
            else f"Only {' and '.join(one.noun for one in estimated_metrics())} can be estimated."
        )
        return
    sentence = estimate_sentence(result, method, metric, estimates)
    st.markdown(f"Second-order, from gradients on {predictions:,} predictions, for every head and neuron. {sentence}")
    exact_column, neuron_column = st.columns(2, gap="large")
    with exact_column:
        frame = run_frames.estimate_frame(result, method, metric, estimates)
        st.markdown("**Estimate and exact change**")
        if len(frame):
            _scatter(frame, "estimate", "exact", title, form, f"Each measured head's estimated and exact {title}.")
            st.caption("One point per head; on the dashed line the estimate equals the exact change.")
        else:
            st.caption("No exact changes to compare with yet.")
    with neuron_column:
        st.markdown(f"**The neurons of head {head}, one at a time (estimated)**")
        layer, number = map(int, head.split("."))
        own = neurons[(neurons["layer"] == layer) & (neurons["head"] == number)].sort_values("neuron")

        def pick_neuron(mark: Mapping[str, Any]) -> None:
            put("head", f"{head}:{int(mark['neuron'])}")

        draw_choice(
            run_charts.neuron_bars,
            own,
            title=title,
            form=form,
            variant=axes.span_of(own["estimate"]),
            key=f"neurons of head {head}",
            shown={"neuron": int(term.split(":")[1])} if ":" in term else None,
            choose=pick_neuron,
            alt=f"Estimated {title} without each neuron of the head, with standard errors.",
        )
        st.caption("Thin lines: ± one standard error. Click a neuron to select it.")
    with st.expander(f"The {LARGEST} neurons of the model with the largest estimates"):
        shown = neurons.head(LARGEST)[["label", "estimate", "error"]]
        st.dataframe(
            shown.rename(columns={"label": "neuron", "estimate": title, "error": "standard error"}),
            hide_index=True,
            width="stretch",
        )


def show_agreement(result: SweepResult, metric: str) -> None:
    """Whether the methods rank the heads alike."""
    title, form = METRICS[metric].change_heading, METRICS[metric].cell_format
    st.subheader("Do the methods agree?", anchor=False)
    frame = run_frames.agreement_frame(result, metric).dropna(subset="rho")
    if len(frame) <= len(result.methods):
        st.caption("This needs at least two methods on four heads: measure more.")
        return

    def pick_pair(mark: Mapping[str, Any]) -> None:
        st.session_state["one"], st.session_state["other"] = mark["one"], mark["other"]

    matrix_column, scatter_column = st.columns(2, gap="large")
    with scatter_column:
        names = st.columns(2)
        one = names[0].selectbox(
            "x axis", result.methods, key="one", bind="query-params", help="The method on the x axis."
        )
        other = names[1].selectbox(
            "y axis", result.methods, index=len(result.methods) - 1, key="other", bind="query-params",
            help="The method on the y axis.",
        )  # fmt: skip
    with matrix_column:
        st.markdown("**Rank correlation over the heads (Spearman's ρ)**")
        draw_choice(
            run_charts.agreement_matrix,
            frame,
            methods=tuple(result.methods),
            dark=dark_page(),
            key="matrix",
            shown={"one": one, "other": other},
            choose=pick_pair,
            alt="Matrix of rank correlations: "
            + "; ".join(
                f"{row.one} and {row.other} {row.rho:.2f}" for row in frame.itertuples() if row.one < row.other
            ),
        )
        st.caption("1: the same ranking of heads; 0: unrelated. Click a pair to plot it; hover for its interval.")
    with scatter_column:
        pairs = run_frames.pair_frame(result, one, other, metric)
        _scatter(pairs, one, other, title, form, f"Each head's {title} by {one} against {other}.")
        st.caption("One point per head; on the dashed line both methods change it equally.")


def _scatter(frame: pd.DataFrame, one: str, other: str, unit: str, form: str, alt: str) -> None:
    draw(
        run_charts.pair_scatter,
        frame,
        one=one,
        other=other,
        unit=unit,
        form=form,
        variant=(run_charts.pair_ends(frame), axes.span_of(frame["x"], frame["y"])),
        alt=alt,
    )
