"""The prompts of a task with what the model answers, without and with an ablation: frames, a chart and sentences."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from ablation_core.experiments.predictions.prediction_scores import PredictionScores
from ablation_core.experiments.predictions.task_prompts import AskedPrompt
from ablation_core.experiments.results import AblationResult
from ablation_core.report.charts.axes import ON_TOP
from ablation_core.report.charts.looks import GREY, HARM, HELP, ink
from ablation_core.report.numbers import number
from ablation_core.report.white_space import legible, visible


def prompt_frame(prompts: Sequence[AskedPrompt], scored: PredictionScores, method: str | None = None) -> pd.DataFrame:
    """One row per prompt: its answers, their probabilities, and the logit difference in nats.

    Args:
        method: whose change of the logit difference stands beside it.
    """
    clean = scored.baseline
    difference = clean["logit_difference"]
    right = clean["probability"]
    columns = {
        "prompt": [visible(one.prompt) for one in prompts],
        "right": [legible(one.right) for one in prompts],
        "P(right)": right,
        "wrong": [legible(one.wrong) for one in prompts],
        "P(wrong)": right * np.exp(-difference),
        "logit difference": difference,
    }
    if method is not None:
        columns["change"] = scored.ablated[method]["logit_difference"] - difference
    return pd.DataFrame(columns)


def task_sentence(result: AblationResult, prompts: Sequence[AskedPrompt]) -> str:
    """How well the model does the task, with an example."""
    baseline, data = result.baseline, result.data
    scored = result.predictions
    text = (
        f"{result.model['ref']} prefers the right answer to the wrong one in {baseline['accuracy']:.0%} of "
        f"{data['predictions']:,} prompts of {data['ref']} "
        f"(mean logit difference {number(baseline['logit_difference'], '+.2f')} nats)."
    )
    if scored is None or not prompts:
        return text
    shares = scored.baseline["probability"]
    example = int(np.abs(shares - shares.mean()).argmin())  # one as good as they are on average
    one, share = prompts[example], float(shares[example])
    wrong = share * float(np.exp(-scored.baseline["logit_difference"][example]))
    shown = visible(one.prompt)
    shown = shown if len(shown) <= 60 else f"…{shown[-60:]}"
    return f"{text} For example: “{shown}” → “{legible(one.right)}” {share:.1%}, “{legible(one.wrong)}” {wrong:.1%}."


def help_sentence(frame: pd.DataFrame, head: str, method: str) -> str:
    """On how many prompts a head helps: where the logit difference falls without it."""
    change = frame["change"].to_numpy()
    falls, rises = int((change < 0).sum()), int((change > 0).sum())
    flipped = int(((frame["logit difference"] > 0) & (frame["logit difference"] + change <= 0)).sum())
    return (
        f"Without head {head} (by {method}), the logit difference falls on {falls} of {len(change)} prompts and rises on "
        f"{rises}; {flipped} right answer{'s' * (flipped != 1)} {'become' if flipped != 1 else 'becomes'} wrong."
    )


def prompt_changes(frame: pd.DataFrame, title: str, dark: bool = False) -> alt.LayerChart:
    """A bar per prompt, sorted: how far its logit difference changes without the head; red where the head helps.

    Args:
        frame: as `prompt_frame` makes it, with changes.
    """
    ordered = frame.sort_values("change", kind="stable", ignore_index=True).assign(rank=range(1, len(frame) + 1))
    ordered["prompt"] = ordered["prompt"].str.slice(-70)
    base, y = alt.Chart(ordered), alt.Y("change:Q", title=title, axis=alt.Axis(**ON_TOP))
    bars = base.mark_bar().encode(
        x=alt.X("rank:O", title="prompts, the largest fall first", axis=alt.Axis(labels=False, ticks=False)),
        y=y,
        color=alt.condition("datum.change < 0", alt.value(HARM), alt.value(HELP)),
        tooltip=[
            alt.Tooltip("prompt:N"),
            alt.Tooltip("right:N"),
            alt.Tooltip("wrong:N"),
            alt.Tooltip("logit difference:Q", title="logit difference before", format="+.2f"),
            alt.Tooltip("change:Q", format="+.2f"),
        ],
    )
    zero = alt.Chart(pd.DataFrame({"change": [0.0]})).mark_rule(color=ink(dark) if dark else GREY).encode(y=y)
    return alt.LayerChart(layer=[bars, zero]).properties(height=220)
