"""What several results' texts say in the same words."""

from ablation_core.engine.metrics import Metric
from ablation_core.report.numbers import sample_of

MOST_HEADS = 10  # shown for each method; all are in the JSON document


def measured_on(document: dict) -> str:
    """The model and the data of a document, as a sentence's beginning."""
    data, positions = document["data"], document.get("positions", "all")
    counted = f"{sample_of(document['model'], data)} ({counted_sequences(data)}) of {data['ref']}"
    return f"{document['model']['ref']} on {counted}" + (f", at positions {positions}" if positions != "all" else "")


def counted_sequences(data: dict) -> str:
    return f"{data['sequences']:,} sequence{'s' * (data['sequences'] != 1)}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def change_of(metric: Metric) -> str:
    return f"change of {metric.label} without each head, in nats per prediction"
