"""`head`: what one head does, and what happens without it."""

import argparse
from typing import TYPE_CHECKING

from ablation_core.cli.measured import load_measured, save_named
from ablation_core.cli.options import add_measured

if TYPE_CHECKING:
    from ablation_core.heads.describe import HeadDescription
    from ablation_core.heads.writes import Written


def add_options(parser: argparse.ArgumentParser) -> None:
    add_measured(parser)
    parser.add_argument("head", metavar="L.H", help="the head, such as 3.2, or one of its neurons, 3.2:5")
    parser.add_argument(
        "--where", default="top", help="examples from the top, bottom, or a decile 1 to 10 (default top)"
    )


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    from ablation_core.heads.describe import describe_head

    asked, parsed.method = parsed.method, parsed.method or ["zero"]  # which needs no statistics
    model, data, _, statistics = load_measured(parsed)
    methods = asked or ["mean" if statistics is not None else "zero"]
    found = describe_head(model, data, parsed.head, methods, statistics, parsed.where, parsed.bins)
    save_named(parsed, found)
    document = found.to_dict()
    return document, _text(found, document)


def _text(found: "HeadDescription", document: dict) -> str:
    from ablation_core.cli.text.phrases import ordinal
    from ablation_core.engine.metrics import main_metric
    from ablation_core.heads.kinds import SCORES

    model, data = document["model"], document["data"]
    lines = [f"Head {found.head} of {model['ref']} on {data['predictions']:,} predictions of {data['ref']}"]
    lines += list(found.notes)
    if found.scores is not None:
        lines.append("What kind of head (mean ± standard deviation over sequences; percentile among all heads):")
        for name, score in SCORES.items():
            value, spread = document["scores"][name], document["spread"][name]
            if value is not None:
                wide = "" if spread is None else f" ± {spread:.3f}"
                unit = f" {score.unit}" if score.unit else ""
                percentile = document["percentile"][name]
                lines.append(f"  {score.label:16}{value:8.3f}{wide}{unit}  [{ordinal(round(percentile))}]")
    if found.writes is not None:
        lines.append(f"Promotes:   {_listed(found.writes.promotes)}")
        lines.append(f"Suppresses: {_listed(found.writes.suppresses)}")
    lines.append("Examples:")
    for example in found.examples:
        where = f"sequence {example.sequence}, position {example.position}"
        shown = f"{example.before}[{example.token}]{example.after}".replace("\n", "⏎") if example.token else ""
        shown = f"patch {example.patch[0]}, {example.patch[1]}" if example.patch else shown
        lines.append(f"  {example.value:9.3f}  {where}: {shown}")
    if found.direct_effect is not None:
        lines.append(f"Direct effect on the target's logit: {found.direct_effect.mean:+.4f}")
    metric = main_metric(found.total_effect.baseline.means)
    for row in found.total_effect.results:
        change = row.change[metric.name]
        span = (
            ""
            if change.low is None
            else f" [{change.low:{metric.change_format}}, {change.high:{metric.change_format}}]"
        )
        what = f"{metric.label[0].upper()}{metric.label[1:]} without it ({row.method})"
        lines.append(f"{what}: {metric.shown_change(change.mean)} per prediction{span}")
    return "\n".join(lines)


def _listed(written: "tuple[Written, ...]") -> str:
    return ", ".join(f"{one.text} {one.logit:+.2f}" for one in written)
