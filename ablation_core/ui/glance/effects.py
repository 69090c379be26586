"""Every head's change of loss as the first page knows it: from the saved sweep, else estimated."""

from __future__ import annotations

from ablation_core.errors import as_markdown
from ablation_core.ui.glance.estimated import estimated_map
from ablation_core.ui.glance.shown import Glance


def effects_of(glance: Glance) -> tuple[dict[str, float], str]:
    """Head → change of loss, nats per prediction; and a sentence about where it is from, or why there is none."""
    view, known = glance.view, glance.known
    if known is not None:
        method, data = known.method(view.method), known.sweep.description["data"]
        words = f"Change of loss by {method}, measured on {data['predictions']:,} {glance.unit} of {as_markdown(data['ref'])}."
        return known.sweep.changes(method, "loss"), words
    found = estimated_map(glance)
    if found is None or not found.estimates:
        return {}, "The effect of every head is not known yet."
    changes = {head: estimate for head, (estimate, _) in found.estimates.items()}
    return changes, f"Change of loss by {found.method}, estimated from gradients, not measured."
