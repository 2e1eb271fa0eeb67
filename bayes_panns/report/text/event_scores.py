"""The scores of events as a table."""

import math

from bayes_panns.evaluations import EventScores
from bayes_panns.evaluations.event_scores import KINDS
from bayes_panns.metrics import Interval
from bayes_panns.report.text.layout import columns


def render_event_scores(scores: EventScores) -> str:
    """A row a label with the F1 of each way to compare, a row for all labels, and lines on thresholds and trust.

    Returns:
        The text, ending in a newline.
    """
    metrics, bounds, how = scores.metrics(), scores.intervals, scores.matching
    titles = {
        "segment": f"F1 of {how.segment:g} s segments",
        "event": f"F1 of events (onset ±{how.collar:g} s)",
        "intersection": "F1 by intersection",
    }
    rows = [["label", "annotated", "found", *(titles[kind] for kind in KINDS)]]
    for k, label in enumerate(scores.labels):
        names = [f"{label}/{kind}_f1" for kind in KINDS]
        numbers = [str(scores.annotated[k]), str(scores.found[k])]
        rows.append([label, *numbers, *(_shown(metrics[name], bounds.get(name)) for name in names)])
    names = [f"{kind}_f1" for kind in KINDS]
    numbers = [str(metrics["annotated"]), str(metrics["found"])]
    rows.append(["all", *numbers, *(_shown(metrics[name], bounds.get(name)) for name in names)])
    lines = [
        f"{scores.hours:.2f} hours. PSDS {_shown(scores.psds.value, bounds.get('psds'))}, "
        f"segment error rate {_shown(metrics['segment_error_rate'])}."
    ]
    if len(scores.there):
        lines.append(
            f"The events found were said to be there with probability {metrics['mean_probability']:.3f} on average; "
            f"{metrics['share_there']:.3f} are. Brier score {metrics['brier']:.3f}."
        )
    return columns(rows) + "\n" + "\n".join(lines) + "\n"


def _shown(value: float, interval: Interval | None = None) -> str:
    if math.isnan(value):
        return "-"
    if interval is None or math.isnan(interval.low):
        return f"{value:.3f}"
    return f"{value:.3f} ({interval.low:.2f} to {interval.high:.2f})"
