"""An ablation, an estimate and interactions as text for the terminal."""

import math

from ablation_core.cli.text.phrases import counted_sequences
from ablation_core.engine.metrics import METRICS, main_metric, metrics_in
from ablation_core.experiments.estimate_result import EstimateResult
from ablation_core.experiments.estimate_validation import TOP, EstimateValidation
from ablation_core.experiments.interaction_result import InteractionResult
from ablation_core.experiments.results import AblationResult, Performance
from ablation_core.report.numbers import sample_of
from ablation_core.report.sentences import format_interval
from ablation_core.report.tasks.harm import harm_sentence, mean_changes


def format_result(result: AblationResult) -> str:
    """A result as a table for the terminal. The change is that of the loss; of a task, that of its logit difference."""
    metrics, main = metrics_in(result.baseline.means), main_metric(result.baseline.means)
    headings = [words for metric in metrics for words in (metric.heading, *(one.label for one in metric.derived))]
    widths = [max(len(words), 6) + 1 for words in headings]

    def cells(performance: Performance, divergences: bool = True) -> str:
        """A performance's figures under their headings."""
        texts = []
        for metric in metrics:
            value = performance[metric.name]
            texts.append(f"{value:{metric.format}}" if divergences or not metric.divergence else "")
            texts += [f"{one.function(value):{one.format}}" for one in metric.derived]
        return " ".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))

    column = max(18, *(len(row.method) + 1 for row in result.results), 0)
    verified = "" if result.model["verified"] else " (found by running it)"
    lines = [
        f"{result.model['ref']}{verified} on {sample_of(result.model, result.data)} of {result.data['ref']}: "
        f"{result.neurons} neurons ablated ({result.select or 'none'})",
        " " * column
        + " ".join(f"{words:>{width}}" for words, width in zip(headings, widths, strict=True))
        + f"   change of {main.label}, 95% interval",
        f"{'baseline':{column}}{cells(result.baseline, divergences=False)}".rstrip(),
    ]
    for row in result.results:
        lines.append(f"{row.method:{column}}{cells(row.performance)}   {format_interval(row.change[main.name])}")
    changes, metric = mean_changes(result)
    sentences = [harm_sentence(changes, row.method, metric) for row in result.results]
    lines += [sentence.replace("\N{MINUS SIGN}", "-") for sentence in sentences if sentence]
    return "\n".join(lines)


def format_estimate(result: EstimateResult, validation: EstimateValidation | None = None) -> str:
    """The heads of the greatest estimated harm for each method, beside the exact values of those that were ablated."""
    model, data = result.description["model"], result.description["data"]
    lines = [
        f"{model['ref']} on {sample_of(model, data)} of {data['ref']}: estimates of second "
        f"order in nats, ± their standard error over {counted_sequences(data)}"
    ]
    for method in result.methods:
        exact, metrics = validation.exact[method.method] if validation else {}, metrics_in(method.changes)
        words = {metric.name: metric.label if metric.divergence else f"change of {metric.label}" for metric in metrics}
        labels = ", ".join(metric.label for metric in metrics)
        width = max(22, *(len(one) + 2 for one in words.values()))
        columns = "".join(f"{one:>{width}}" for one in words.values())
        lines.append(f"{method.method + ', head':26}{columns}" + f"   exact: {labels}" * bool(exact))
        for head in method.largest(max(10, len(exact))):
            parts = [method[metric.name] for metric in metrics]
            values = [f"{part.heads[head]:+.5f} ± {part.heads_error[head]:.5f}" for part in parts]
            name = f"{head[0]}.{head[1]}"
            found = (
                [f"{exact[head][m.name]:{'' if m.divergence else '+'}.5f}" for m in metrics] if head in exact else []
            )
            measured = f"   {', '.join(found)}" if found else ""
            lines.append(f"{name:>26}{''.join(f'{value:>{width}}' for value in values)}{measured}")
        if validation is None or not exact:
            continue
        for metric in metrics:
            compared = validation.agreements[method.method][metric.name]
            figures = {"rank correlation": compared.spearman, "slope": compared.slope, "median ratio": compared.ratio}
            found = [f"{name} {value:.2f}" for name, value in figures.items() if math.isfinite(value)]
            if compared.top is not None:
                found.append(f"{compared.top} of the first {TOP} the same (by chance {compared.top_by_chance:.1f})")
            found = found or ["too few to compare"]
            lines.append(f"  {words[metric.name]} against exact values of {compared.heads} heads: {', '.join(found)}")
    return "\n".join(lines)


def format_interactions(result: InteractionResult) -> str:
    """Each head alone, every pair, and what the pairs do beyond their heads."""
    described, metric = result.description, METRICS[result.metric]
    lines = [
        f"{described['model']['ref']} on {sample_of(described['model'], described['data'])} of {described['data']['ref']}, by "
        f"{result.method}: change of {metric.label}{metric.per_prediction(' in ')}, 95% interval",
    ]
    lines += [f"{head:>16}  {format_interval(change)}" for head, change in result.singles.items()]
    lines.append(
        f"{'all together':>16}  {format_interval(result.joint)}; beyond the sum {format_interval(result.excess)}"
    )
    lines.append("interaction: the change of both minus both single changes")
    for pair in result.pairs:
        q = "" if pair.q is None else f"  q = {pair.q:.3f}"
        lines.append(f"{' and '.join(pair.pair):>16}  {format_interval(pair.interaction)}{q}  {pair.verdict}")
    return "\n".join(lines)
