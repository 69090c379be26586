"""Head map: what the model does without each head, one at a time, by any method and measure."""

from collections.abc import Generator

import streamlit as st

from ablation_core import charts, instant, long_runs, run_charts, run_frames, ui
from ablation_core.ledger import run_path
from ablation_core.methods import METHODS, USUAL, usable_methods
from ablation_core.run_words import estimate_sentence, sweep_sentence
from ablation_core.selection import Selection
from ablation_core.server import shared_data, shared_estimates
from ablation_core.sweep import SweepResult, SweepSpec, describe_sweep, empty_sweep, kept_sweeps

# metric → words with the unit, the form of its numbers, the sign of a harm (0: never negative)
METRICS = {
    "loss": ("change of loss, nats", "+.3f", 1),
    "top1": ("change of top-1", "+.1%", -1),
    "top10": ("change of top-10", "+.1%", -1),
    "kl": ("KL from the baseline, nats", ".3f", 0),
}

view = ui.open_page("Head map", "🗺️")
model, shape = view.model, view.model.shape


def pick_head() -> None:
    """The clicked head becomes the one shown beside the map."""
    if clicked := st.session_state["effects"].selection.get("pick"):
        st.session_state["head"] = f"{int(clicked[0]['layer'])}.{int(clicked[0]['head'])}"


def pick_pair() -> None:
    """The clicked pair of methods is drawn against each other."""
    if clicked := st.session_state["matrix"].selection.get("pair"):
        st.session_state["one"], st.session_state["other"] = clicked[0]["one"], clicked[0]["other"]


def show_head(result: SweepResult, head: str, metric: str) -> None:
    """One head by all methods, and where to go on with it."""
    title = METRICS[metric][0]
    st.markdown(f"**Head {head} by every method**")
    frame = run_frames.method_frame(result, head, metric, view.method)
    if len(frame):
        floor = result.floor(view.method, metric)
        st.altair_chart(
            charts.changes(frame, title, floor[:2] if floor else None),
            alt=f"{title} without head {head}, by method, with 95 % intervals.",
        )
        st.caption(f"95 % intervals, paired. Grey band: random sets of as many neurons, by {view.method}.")
    else:
        st.caption("Not measured yet.")
    here = st.query_params.to_dict()
    st.page_link("app.py", label=f"Distributions of {head}", query_params=here | {"neuron": head})
    st.page_link("pages/ablate.py", label=f"Ablate {head}", query_params=here | {"select": head})


def show_table(frame) -> None:
    """Every head's numbers, the largest change first."""
    with st.expander("All heads as a table"):
        table = frame.drop(columns=["layer", "head", "picked"]).rename(columns={"label": "head", "value": title})
        st.dataframe(table.dropna(axis="columns", how="all"), hide_index=True, width="stretch", row_height=28)


def show_agreement(result: SweepResult, metric: str) -> None:
    """Whether the methods order the heads alike."""
    st.subheader("Do the methods agree?", anchor=False)
    frame = run_frames.agreement_frame(result, metric).dropna(subset="rho")
    if len(frame) <= len(result.methods):
        st.caption("Two methods and four heads are needed: measure more.")
        return
    title, form, _ = METRICS[metric]
    matrix_column, scatter_column = st.columns(2, gap="large")
    with matrix_column:
        st.markdown("**Rank correlation over the heads (Spearman's ρ)**")
        st.altair_chart(
            run_charts.agreement_matrix(frame, result.methods),
            key="matrix",
            on_select=pick_pair,
            selection_mode="pair",
            alt="Matrix of rank correlations: "
            + "; ".join(
                f"{row.one} and {row.other} {row.rho:.2f}" for row in frame.itertuples() if row.one < row.other
            ),
        )
        st.caption("1: the same order of heads, 0: unrelated. Click a pair to draw it; its interval shows on hovering.")
    with scatter_column:
        names = st.columns(2)
        one = names[0].selectbox("Across", result.methods, key="one", bind="query-params")
        other = names[1].selectbox(
            "Up", result.methods, index=len(result.methods) - 1, key="other", bind="query-params"
        )
        pairs = run_frames.pair_frame(result, one, other, metric)
        st.altair_chart(
            run_charts.pair_scatter(pairs, one, other, title, form),
            alt=f"Each head's {title} by {one} against {other}.",
        )
        st.caption("A point is a head; on the dashed line both methods change the same.")


st.header("Without each head", anchor=False)
metric = st.pills(
    "Measure",
    list(METRICS),
    default="loss",
    key="metric",
    bind="query-params",
    required=True,
    help="What the colours show. Orange is harm, blue the opposite.",
)
with ui.sentences():
    data = shared_data(model, view.data_ref, view.predictions, "evaluation")
usable = usable_methods(data, model.modality)
methods = st.pills(
    "Methods measured",
    usable,
    default=[name for name in USUAL if name in usable],
    selection_mode="multi",
    key="methods",
    bind="query-params",
    help="The map shows the method of the sidebar; the others are measured on the same heads and compared.",
)
names = [name for name in usable if name in {*methods, view.method}]
spec = SweepSpec(tuple(METHODS[name] for name in names), view.bins)
described = describe_sweep(model, data, view.statistics, view.bins)
own = run_path(long_runs.FOLDER, "sweep", described)
estimates, estimate_key = shared_estimates(), f"estimate for {own.name} {' '.join(names)}"
title, form, worse = METRICS[metric]
shown = long_runs.choose_run(
    own,
    kept_sweeps(model, long_runs.FOLDER, names),
    described,
    lambda result: f"{sum(head in result.rows for head in result.wanted)} of {len(result.wanted)} heads",
)


def estimate_steps() -> Generator[instant.Instant]:
    return instant.estimate_steps(model, data, spec, view.statistics, estimates, estimate_key)


def refined_steps() -> Generator[instant.Instant | SweepResult]:
    return instant.refined_steps(model, data, spec, view.statistics, estimates, estimate_key, long_runs.FOLDER)


if shown == own and own not in kept_sweeps(model, long_runs.FOLDER, names) and estimate_key not in estimates:
    long_runs.begin_once(estimate_key, f"Instant estimate of {model.ref}", estimate_steps)


@long_runs.watched(own)
def draw() -> None:
    kept = kept_sweeps(model, long_runs.FOLDER, names)
    mine, result = kept.get(own), kept.get(shown)
    left = shape.layers and (len(mine.wanted) - len(mine.heads) if mine else sum(shape.heads))
    words = f"{left} head{'s' * (left != 1)} × {len(names)} method{'s' * (len(names) != 1)}"
    begin = f"{'Go on with' if mine else 'Measure'} {words} on {data.predictions:,} predictions" if left else None
    long_runs.controls(own, f"Head map of {model.ref}", refined_steps, begin)
    if result is None:
        result = empty_sweep(model, described, names)
    estimated = instant.head_estimates(estimates.get(estimate_key), view.method, metric)
    frame = run_frames.map_frame(result, view.method, metric, None, estimated)
    if frame.empty:
        st.info("Nothing is measured with these settings yet. The map fills as heads are finished, and they are kept.")
        return
    st.markdown(
        f"{sweep_sentence(result, view.method, metric)} {estimate_sentence(result, view.method, metric, estimated)}"
    )
    first = frame["label"].iloc[0]
    map_column, head_column = st.columns([3, 2], gap="large")
    with head_column:
        text = st.text_input(
            "Head",
            key="head",
            bind="query-params",
            placeholder=f"{first}, the largest change",
            help="Click a head on the map, or type it: 3.2.",
        )
        with ui.sentences():
            chosen = Selection.parse(text or first, shape).heads
        head = f"{chosen[0][0]}.{chosen[0][1]}" if chosen else first
        show_head(result, head, metric)
    frame["picked"] = frame["label"] == head
    with map_column:
        st.altair_chart(
            run_charts.effect_map(frame, f"{title}, by {view.method}", form, shape.layers, max(shape.heads), worse),
            key="effects",
            on_select=pick_head,
            selection_mode="pick",
            alt=f"Map of {len(frame)} heads coloured by {title}. {sweep_sentence(result, view.method, metric)}",
        )
        st.caption(
            "Solid: told from no effect; pale: not told; dashed: an instant estimate, not measured yet. Colours go with the "
            "root of the change, so that small ones show."
        )
    show_table(frame)
    show_agreement(result, metric)


draw()
