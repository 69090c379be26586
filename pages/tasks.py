"""Tasks: which heads a model needs to give the right answer rather than the wrong one, where, and on which prompts."""

from collections.abc import Generator, Mapping
from functools import partial
from typing import Any

import streamlit as st

from ablation_core.data.positions import Positions
from ablation_core.engine.metrics import METRICS, main_metric, metrics_of, telling_metrics
from ablation_core.errors import as_markdown
from ablation_core.methods.registry import METHODS, usable_methods
from ablation_core.report import run_frames
from ablation_core.report.charts import effect_maps
from ablation_core.report.run_sentences import shown_sentence, sweep_sentence
from ablation_core.report.tasks.prompts import prompt_frame, task_sentence
from ablation_core.runs.ledger import run_path
from ablation_core.runs.sweep import SweepSpec
from ablation_core.runs.sweep_result import SweepResult, empty_sweep, kept_sweeps
from ablation_core.runs.units import describe_work
from ablation_core.selection import Selection
from ablation_core.server import head_map as instant
from ablation_core.server.turns import fair_lock
from ablation_core.ui import export_row, page
from ablation_core.ui.boxes import last_usable, put, text_box
from ablation_core.ui.picking import draw_choice
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.runs.expected import passes_of_heads, seconds_of
from ablation_core.ui.runs.export_row import head_table, sweep_exports
from ablation_core.ui.runs.watching import watched_run
from ablation_core.ui.shared import shared_data, shared_estimates
from ablation_core.ui.tasks import choice
from ablation_core.ui.tasks import head as parts
from ablation_core.ui.widgets import as_tables, choose_metric, dark_page

NOT_MEASURED = "No head has been measured yet: the map shows instant estimates, where there are any."
COMPARED = ("zero", "mean", "mean-positional", "peak", "resample-dataset", "counterfactual")

view = page.open_page("Tasks", "🎯", controls=("method",))
st.header("Which heads does a task need?", anchor=False)
if view.info.modality not in ("causal", "masked"):
    st.info("Tasks are prompts with a right and a wrong answer. Choose a language model in the sidebar.")
    st.stop()
model, shape = view.model, view.model.shape


def pick_head(mark: Mapping[str, Any]) -> None:
    """Show the clicked head."""
    put("head", f"{int(mark['layer'])}.{int(mark['head'])}")


def read_positions(text: str) -> Positions:
    """Positions that the prompts have."""
    where = Positions.parse(text)
    where.check(data.longest, data.is_task)
    return where


with st.container(key="settings-task"):
    chosen = choice.choose_task()
with page.show_errors():
    data = shared_data(model, chosen.ref, chosen.prompts, "evaluation")
positions = last_usable("positions", f"positions in {chosen.ref}", chosen.positions, read_positions, usual="all")
names = parts.measured_names(usable_methods(data, model.modality), COMPARED, view.method)
if view.method not in names:
    st.info(f"{view.method} is learned for each selection, or this task has no source for it. Choose another method.")
    st.stop()
offered = telling_metrics(metrics_of(data), model)
colours = "What the colours show. Red: the model gets worse; blue: it gets better."
with st.container(key="settings"):
    metric = choose_metric(st.pills, offered, main_metric(offered).name, "task_metric", colours)
row = METRICS[metric]
spec = SweepSpec(tuple(METHODS[name] for name in names), view.bins, positions=positions)
described = describe_work(model, data, view.statistics, view.bins, positions)
own = run_path(run_controls.FOLDER, "sweep", described)
store, estimate_key = shared_estimates(), f"estimate for {own.name} {' '.join(names)}"


def exact_steps() -> Generator:
    return instant.refined_steps(model, data, spec, view.statistics, store, estimate_key, run_controls.FOLDER)


def estimate_steps() -> Generator[instant.Instant]:
    return instant.estimate_steps(model, data, spec, view.statistics, store, estimate_key)


def begin_words(result: SweepResult) -> str | None:
    """The label of the button that measures the heads; None where nothing is left to do."""
    left = sum(shape.heads) - len(result.heads)
    words = f"{len(names)} methods on {data.predictions:,} prompts"
    return None if not left else f"Measure {left} head{'s' * (left != 1)} × {words}"


estimate = store.get(estimate_key)
whole = len((kept_sweeps(model, run_controls.FOLDER, names).get(own) or empty_sweep(model, described, names)).heads)
if data.one_answer and whole < sum(shape.heads) and (estimate is None or estimate.share < 1):
    run_controls.begin_once(
        estimate_key, f"Instant estimate of {model.ref} on {data.ref}", estimate_steps, fair_lock(model)
    )


@watched_run(own)
def show_run() -> None:
    result = kept_sweeps(model, run_controls.FOLDER, names).get(own) or empty_sweep(model, described, names)
    left = sum(shape.heads) - len(result.heads) + spec.random_sets
    estimated = instant.head_estimates(store.get(estimate_key), view.method, metric)
    frame = run_frames.map_frame(result, view.method, metric, None, estimated)
    first = frame["label"].iloc[0] if len(frame) else "0.0"
    answer, map_part = st.container(key="answer"), st.columns([3, 2], gap="large")
    with map_part[1]:
        run_controls.controls(
            own, f"Heads of {model.ref} on {data.ref}", exact_steps, begin_words(result), fair_lock(model),
            seconds=lambda: seconds_of(model, data, len(names) * passes_of_heads(shape, left)),
        )  # fmt: skip
        text = text_box(
            "head",
            "Head",
            placeholder=f"{first}, the largest change" if len(frame) else first,
            help="Click a head on the map, or type it: 3.2.",
        )
        ((layer, number),) = last_usable(
            "head", f"head of {model.ref}", text or first, partial(Selection.parse_one, shape=shape), usual=first
        ).heads
        head = f"{layer}.{number}"
        parts.show_by_method(result, head, view.method, metric)
        parts.show_links(head)
    with page.show_errors():
        asked, prompts = parts.answered(view, data, head, positions)
    with answer:
        st.markdown(as_markdown(task_sentence(asked, prompts)))
        st.markdown(sweep_sentence(result, view.method, metric) if result.rows else NOT_MEASURED)
    with map_part[0]:
        if frame.empty:
            st.info(
                "Nothing has been measured with these settings yet. The map fills as heads are finished; each is saved."
            )
        else:
            words = f"{row.change_heading}, by {view.method}"
            draw_choice(
                effect_maps.effect_map,
                frame,
                title=words,
                metric=row,
                layers=shape.layers,
                heads=max(shape.heads),
                dark=dark_page(),
                variant=effect_maps.deepest(frame),
                key="task heads",
                shown={"layer": layer, "head": number},
                choose=pick_head,
                alt=f"Map of all heads coloured by {words}; the one beside it is outlined.",
            )
            st.caption(
                f"{effect_maps.marks_words(shape.layers * max(shape.heads))} Square-root colour scale."
                + (f"  \n{as_markdown(shown_sentence(result.description))}" if result.rows else "")
            )
    parts.show_by_position(view, data, head, metric)
    changes = prompt_frame(prompts, asked.predictions, view.method)
    parts.show_prompts(changes, head, view.method)
    tables = {f"Prompts without head {head}": changes}
    if not frame.empty:
        tables["Every head"] = head_table(frame)
    as_tables(tables, key="tables of tasks")
    if result.rows:
        neurons = instant.neuron_estimates(store.get(estimate_key), view.method, metric)
        export_row.row(sweep_exports(result, view.method, metric, head, estimated, neurons))


show_run()
choice.upload_pairs()
