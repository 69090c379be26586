"""Learn: what ablation is, why zero is not neutral, what the peak is; for someone new to it."""

from dataclasses import astuple

import pandas as pd
import streamlit as st

from ablation_core.activations.neuron_summary import summarise_neuron
from ablation_core.report import frames
from ablation_core.report.charts import neuron_charts
from ablation_core.ui import page
from ablation_core.ui.learn import parts
from ablation_core.ui.learn.glossary import words
from ablation_core.ui.learn.lessons import EXAMPLES, EXPERIMENTS, KINDS, MODEL, MODELS, REFERENCES, Experiment, query
from ablation_core.ui.learn.strip import PARAMETER
from ablation_core.ui.learn.toy import PRESETS, RANGE, Toy
from ablation_core.ui.sidebar.sidebar import BINS
from ablation_core.ui.widgets import dark_page, draw, page_link, single_choice

SLIDERS = ("toy-place", "toy-lean", "toy-second", "toy-distance")

page.open_frame("Learn", "🎓", layout="centered")


def take_preset() -> None:
    """Set the sliders to the chosen shape."""
    if chosen := st.session_state["toy-shape"]:
        st.session_state.update(zip(SLIDERS, astuple(PRESETS[chosen]), strict=True))


def _draw_neuron(
    bars: pd.DataFrame, marks: pd.DataFrame, unit: str, alt: str, span: tuple[float, float] | None = None
) -> None:
    draw(
        neuron_charts.neuron_histogram,
        bars,
        marks,
        unit=unit,
        log=False,
        span=span,
        dark=dark_page(),
        variant=len(marks),
        key=f"histogram of {unit}",
        alt=alt,
    )


@st.fragment
def toy_neuron() -> None:
    """The made-up neuron: sliders, chart, sentence and table, redrawn by themselves."""
    st.pills(
        "Start with a shape", list(PRESETS), key="toy-shape", on_change=take_preset, help="Sets the sliders below."
    )
    left, right = st.columns(2, gap="large")
    with left:
        place = st.slider(
            "Place: where the first hump is", -4.0, 6.0, 1.5, 0.1, key=SLIDERS[0], bind="query-params",
            help="In activation units. Zero stays where it is.",
        )  # fmt: skip
        lean = st.slider(
            "Lean: a tail to one side", -8.0, 8.0, 8.0, 0.5, key=SLIDERS[1], bind="query-params",
            help="0 is a symmetric bell; to the right, a tail of high values; to the left, a tail of low ones.",
        )  # fmt: skip
    with right:
        second = st.slider(
            "Second hump: its share of the activations", 0.0, 0.5, 0.0, 0.05, key=SLIDERS[2], bind="query-params",
            help="Some neurons have two habits: one value for most words, another for some.",
        )  # fmt: skip
        distance = st.slider(
            "Distance of the second hump", -4.0, 4.0, 3.0, 0.1, key=SLIDERS[3], bind="query-params",
            help="In activation units; it matters only where the second hump has a share.",
        )  # fmt: skip
    toy = Toy(place, lean, second, distance)
    st.markdown(f"**{toy.sentence()}**")
    bars = toy.bars()
    marks = frames.mark_frame(toy.reading(), bars, RANGE)
    _draw_neuron(bars, marks, "activation", f"Histogram of a made-up neuron. {toy.sentence()}", span=RANGE)
    st.caption("*Near* means within a quarter of a standard deviation (std). The chart shows 10,000 activations.")
    with st.expander("Chart data"):
        st.table(parts.candidates(toy))


@st.fragment
def real_neuron() -> None:
    """A neuron of a bundled model, from its statistics alone: no model is loaded."""
    model = st.segmented_control(
        "A model that …", list(MODELS), default=MODEL, key="learn-model", format_func=MODELS.get, required=True,
        help="Three small models come with the project: opt-mini, roberta-mini and vit-mini.",
    )  # fmt: skip
    with page.show_errors():
        statistics = parts.bundled_statistics(model)
    kind = single_choice(
        st.segmented_control, "One of its neurons", list(KINDS), default="Far from zero", key="kind",
        help=f"Each is one of the {statistics.mean.size:,} attention neurons of {model}.",
    )  # fmt: skip
    example = EXAMPLES[model][kind]
    bins = st.select_slider(
        "Bins for the peak", BINS, value=60, key="learn-bins", bind="query-params",
        help="The peak is the middle of the fullest bin. Few bins: steady but coarse. Many bins: fine but noisy.",
    )  # fmt: skip
    reading = summarise_neuron(statistics, *example.neuron, bins)
    st.markdown(f"**{example.words}** {reading.sentence}")
    bars = frames.histogram_frame(statistics, *example.neuron, bins)
    marks = frames.mark_frame(reading, bars)
    words = f"Histogram of neuron {example.name} of {model}. {reading.sentence}"
    _draw_neuron(bars, marks, f"activation of neuron {example.name}", words)
    made = statistics.provenance
    st.caption(f"Neuron {example.name} of {model}, at {made['tokens']:,} positions of {made['data']}.")
    with st.expander("Its values as a table"):
        st.table(parts.values(reading))
    page_link(
        "pages/distributions.py",
        f"Open neuron {example.name} on the Distributions page",
        query(example.name.split(":")[0], "mean", model) | {"neuron": example.name},
    )


def guided(number: int, experiment: Experiment) -> None:
    """One experiment: what to do, where, the question, and the answer on request."""
    st.subheader(f"Experiment {number}: {experiment.title}", anchor=False)
    st.markdown(experiment.task)
    for label, link in experiment.links.items():
        page_link(link.page, label, link.params | {PARAMETER: str(number)})
    st.markdown(f"**Question.** {experiment.question}")
    with st.expander(f"Answer to experiment {number}"):
        st.markdown(experiment.answer_text)
        of_task = " The task: 100 prompts of task:induction." if experiment.scores else ""
        st.caption(f"opt-mini, 2,000 predictions of python-docs, seed 0; 95% intervals in brackets.{of_task} Other versions of "
                   "Python have slightly different documentation, which changes the last digits.")  # fmt: skip


st.header("What is ablation?", anchor=False)
st.markdown(
    "A transformer reads in **layers**. In each layer, several **attention heads** gather information from other places, "
    "and each writes down a few numbers. One such number is a **neuron**; its value at one position of a text is an "
    "**activation**.  \nTo find out what a head is for, take it out and see what gets worse. That is **ablation**."
)
parts.diagram()
st.markdown(
    "But a neuron cannot be left empty: the next part of the model expects a number. "
    "**Which number means *nothing*?** That is the question of this app."
)

st.header("1 · Shape a neuron", anchor=False)
st.markdown(
    "The chart shows how often a neuron takes which value. Four candidates could stand for *nothing*: **zero**; the "
    "**mean**, its average; the **median**, with half of its values on either side; and the **peak**, its most frequent "
    "value. Move the sliders and watch them separate."
)
toy_neuron()
st.info(
    "**Why zero is not neutral.** The layers after the neuron have only ever seen its usual values. If zero is far from "
    "all of them, setting it to zero does two things: it removes the neuron's information, and it gives the rest of the "
    "model something strange. Only the first was intended."
)

st.header("2 · A real neuron", anchor=False)
st.markdown(
    "The same chart, but measured: a small language model reading Python's documentation, or a vision model looking at "
    "pictures of clothes."
)
real_neuron()

st.header("3 · Four experiments", anchor=False)
st.markdown(
    "Now measure. **Loss** says how surprised the model is by what comes next, in *nats* per prediction; lower is better. "
    "A change of loss comes with an **interval**: if it includes 0, the change is not significant."
)
for place, experiment in enumerate(EXPERIMENTS, start=1):
    guided(place, experiment)
st.markdown(
    "**And with other models?** Ask the first three questions about a model that fills gaps, and about one that looks at "
    "pictures. There are no answers here: what do you find?"
)
page_link("pages/ablate.py", "Ablate head 2.0 of roberta-mini", query("2.0", "mean", "roberta-mini"))
page_link("pages/ablate.py", "Ablate head 2.3 of vit-mini", query("2.3", "mean", "vit-mini"))

st.header("Glossary", anchor=False)
for subject, table in words().items():
    with st.expander(subject):
        st.table(table)

st.header("Further reading", anchor=False)
for reference in REFERENCES:
    st.markdown(f"[{reference.text}]({reference.link})  \n{reference.why}")
