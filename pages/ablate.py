"""Ablate: what the model does without the selected neurons, by every method, on the same predictions."""

import math

import streamlit as st

from ablation_core import charts, frames, live, takeaway, ui
from ablation_core.draw import draw
from ablation_core.hurts import show_harm
from ablation_core.metrics import Interval
from ablation_core.own_view import show_own_input
from ablation_core.results import MethodResult
from ablation_core.selection import Selection
from ablation_core.verdict import comparison, harm_split, verdict

METRICS = {"loss": "change of loss, nats a prediction", "top1": "change of top-1", "top10": "change of top-10", "kl": "KL from the baseline, nats"}  # fmt: skip

_COLUMNS = {
    "top1": st.column_config.NumberColumn("top-1", format="percent"),
    "top10": st.column_config.NumberColumn("top-10", format="percent"),
    "loss": st.column_config.NumberColumn("loss, nats", format="%.4f"),
    "perplexity": st.column_config.NumberColumn(format="%.2f"),
    "kl": st.column_config.NumberColumn("KL, nats", format="%.5f"),
    "moved": st.column_config.NumberColumn(
        "moved, std", format="%.2f", help="How far the values are moved: root mean square, in standard deviations."
    ),
    "residual": st.column_config.NumberColumn(
        "residual stream's length", format="percent", help="Its mean change after the ablated layers."
    ),
}

view = ui.open_page("Ablate", "✂️")
shape = view.model.shape


def toggle_head() -> None:
    """The clicked head is added to the selection, or taken out of it."""
    if clicked := st.session_state[map_key].selection.get("pick"):
        head = Selection.of_heads([(int(clicked[0]["layer"]), int(clicked[0]["head"]))], shape)
        st.session_state["select"] = str(view.selection.toggled(head))


def show_numbers(outcome: live.Outcome) -> None:
    """The chosen method's row of figures: baseline, ablated, change with interval."""
    result = outcome.result
    row = next((row for row in result.results if row.method == view.method), result.results[0])
    before, after, change = result.baseline, row.performance, row.change
    figures = (
        ("Loss, nats", f"{before.loss:.4f}", f"{after.loss:.4f}", ui.interval_text(change["loss"], "+.4f"), "loss"),
        ("Perplexity", f"{before.perplexity:.2f}", f"{after.perplexity:.2f}", _ratio(row), "loss"),
        ("Top-1", f"{before.top1:.1%}", f"{after.top1:.1%}", ui.interval_text(change["top1"], "+.2%"), "top1"),
        ("Top-10", f"{before.top10:.1%}", f"{after.top10:.1%}", ui.interval_text(change["top10"], "+.2%"), "top10"),
        ("KL, nats", "0", f"{after.kl:.5f}", ui.interval_text(change["kl"], ".5f"), "kl"),
    )
    for column, (name, baseline, ablated, text, metric) in zip(st.columns(5), figures, strict=True):
        worse = change[metric].mean > 0 if metric in ("loss", "kl") else change[metric].mean < 0
        colour = ("red" if worse else "green") if change[metric].shows_effect else "gray"
        column.markdown(f"**{name}**  \n{baseline} → **{ablated}**  \n:{colour}[{text}]")


def _ratio(row: MethodResult) -> str:
    """The change of perplexity as a factor: the change of loss, exponentiated."""
    loss = row.change["loss"]
    bounds = (None, None) if loss.low is None else (math.exp(loss.low), math.exp(loss.high))
    return "× " + ui.interval_text(Interval(math.exp(loss.mean), *bounds), ".4f")


def show_comparison(outcome: live.Outcome) -> None:
    """All methods side by side, with the noise floor."""
    result, floor = outcome.result, outcome.floor
    metric = st.session_state.get("metric") or "loss"
    band = (floor.low, floor.high) if floor and metric == "loss" else None
    frame = frames.change_frame(result, metric, view.method)
    draw(
        charts.changes,
        frame,
        title=METRICS[metric],
        floor=band,
        variant=tuple(frame["kind"]),
        alt=f"{METRICS[metric]} by method with 95 % intervals.",
    )
    notes = [
        f"{result.data['predictions']:,} predictions in {result.data['sequences']:,} sequences of {result.data['ref']}",
        "95 % intervals, paired, resampling whole sequences",
    ]
    if band:
        notes.append(f"grey band: {floor.sets} random sets of as many neurons of the same layers, mean-ablated")
    st.caption("; ".join(notes) + ".")
    st.dataframe(frames.result_frame(result), column_config=_COLUMNS, hide_index=True, width="stretch")


st.header("What the model does without them", anchor=False)
answer = st.empty()
map_column, result_column = st.columns([2, 3], gap="large")
with map_column:
    st.markdown("**Click heads to add or remove them**")
    map_key = f"map {view.selection}"  # a new key forgets the last click, so that the same head can be clicked again
    frame = frames.head_frame(frames.head_distances(view.statistics, view.bins), shape, set(view.selection.heads))
    draw(
        charts.head_map,
        frame,
        title="|peak − mean| in std",
        variant=shape,
        key=map_key,
        on_pick=toggle_head,
        alt=f"Map of {len(frame)} heads; the selected ones are outlined: {view.selection}.",
    )
    st.markdown("**Where the replaced values lie**")
    values = frames.replaced_frame(view.statistics, view.selection, view.bins)
    draw(
        charts.replaced_values,
        values,
        variant=tuple(values["kind"].unique()),
        alt="Each method's values in standard deviations from the neurons' means.",
    )
with result_column:
    st.pills(
        "Compared by",
        list(METRICS),
        default="loss",
        key="metric",
        bind="query-params",
        required=True,
        help="What the picture shows for every method.",
    )
    st.toggle(
        "All methods",
        key="every",
        bind="query-params",
        help="Compare also the other ways to find the peak and to resample. They take as much longer as they are more.",
    )
    place = st.empty()
    with ui.sentences():
        for outcome in live.ablations(view):
            with answer.container():
                show_numbers(outcome)
                st.markdown(f"{verdict(outcome.result, view.method, outcome.floor)} {comparison(outcome.result)}")
                if split := harm_split(outcome.result, view.method):
                    st.markdown(split)
            with place.container():
                show_comparison(outcome)
st.divider()
show_harm(view, outcome)
st.divider()
show_own_input(view)
takeaway.of_ablation(view, outcome)
