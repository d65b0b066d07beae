"""docs/metrics.md: what the exporter says."""

from __future__ import annotations

from docs.generators.markdown import table
from tasks.metrics import METRICS


def metrics_table() -> str:
    """A line for each metric."""
    rows = []
    for metric in METRICS:
        name = metric.name + ("_total" if metric.kind == "counter" else "")
        rows.append((f"`{name}`", metric.kind, ", ".join(metric.labels), metric.means))
    return table(("metric", "kind", "labels", ""), rows)
