"""Several sources side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from bayes_panns import metrics
from bayes_panns.evaluations import Evaluation, compare
from bayes_panns.metrics import Interval
from bayes_panns.predictions import scores
from bayes_panns.report.formatting import number, span
from bayes_panns.report.names import Better, MetricName, metric_name
from bayes_panns.report.page.charts import Chart, Charts, plain
from bayes_panns.report.page.intervals import how_intervals, resamples_for
from bayes_panns.report.page.readings import main_metrics


@dataclass(frozen=True)
class ComparedValue:
    """A metric of one source.

    Attributes:
        value: Its value as shown.
        ends: Its interval as shown; may be empty.
        difference: The difference from the first source with its interval; empty where the clips differ.
        verdict: ``better``, ``worse`` or ``different`` where the interval excludes 0; otherwise empty.
    """

    value: str
    ends: str
    difference: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class ComparedMetric:
    """A metric of several sources: its key, its names, and a value for each source."""

    metric: str
    name: MetricName
    values: Sequence[ComparedValue]


@dataclass(frozen=True)
class Comparison:
    """Several sources side by side: how to read it, a row for each metric, and charts."""

    text: str
    rows: Sequence[ComparedMetric]
    charts: Sequence[Chart]


def compare_sources(
    names: Sequence[str],
    evaluations: Sequence[Evaluation | None],
    intervals: Sequence[Mapping[str, Interval]],
    draw: Charts,
) -> Comparison:
    """Compare sources with the first one.

    Args:
        names: The name of each source.
        evaluations: The evaluation of each, if it has one.
        intervals: The metrics of each evaluation; empty without one.
        draw: Draws the charts.
    """
    first = evaluations[0]
    differences: list[Mapping[str, Interval]] = [{}]
    same = []
    for name, other in zip(names[1:], evaluations[1:], strict=True):
        if first is not None and other is not None and _same_clips(first, other):
            differences.append(_differences(first, other))
            same.append(name)
        else:
            differences.append({})
    known = {metric: None for found in intervals for metric in found}
    rows = []
    for metric in main_metrics(known):
        better = metric_name(metric).better
        values = [
            _compared(found.get(metric), difference.get(metric), better)
            for found, difference in zip(intervals, differences, strict=True)
        ]
        rows.append(ComparedMetric(metric, metric_name(metric), values))
    text = "The metrics of each run with their intervals."
    if same:
        text += (
            f" {', '.join(same)} and {names[0]} were scored on the same clips, so their differences have paired "
            "intervals. If such an interval includes 0, there may be no difference."
        )
    if len(same) < len(names) - 1:
        text += f" There is no difference for a run that was not scored on the clips of {names[0]}."
    if first is not None:
        text += f" {how_intervals(first, resamples_for(first))}"
    charts = [_metric_chart(row.name, names, [found.get(row.metric) for found in intervals], draw) for row in rows]
    return Comparison(text, rows, [*charts, *_curves(names, evaluations, draw)])


def _same_clips(a: Evaluation, b: Evaluation) -> bool:
    return (
        (a.names, a.labels, a.task) == (b.names, b.labels, b.task)
        and a.target.shape == b.target.shape
        and bool((a.target == b.target).all())
    )


def _differences(first: Evaluation, other: Evaluation) -> Mapping[str, Interval]:
    """The other's metrics minus the first's, of the same clips."""
    ood = None
    if first.ood is not None and other.ood is not None and first.ood_names == other.ood_names:
        ood = (other.ood, first.ood)
    return compare(
        other.uncertainty,
        first.uncertainty,
        first.target,
        first.task,
        ood,
        groups=first.groups,
        ood_groups=first.ood_groups if ood is not None else None,
        resamples=resamples_for(first),
    )


def _compared(interval: Interval | None, difference: Interval | None, better: Better) -> ComparedValue:
    if interval is None:
        return ComparedValue("–", "")
    value, ends = number(interval.value), span(interval)
    if difference is None or not span(difference):
        return ComparedValue(value, ends)
    verdict = ""
    if difference.low > 0 or difference.high < 0:
        rose = difference.low > 0
        verdict = "different" if not better else "better" if rose == (better == "higher") else "worse"
    sign = "+" if difference.value > 0 else ""
    return ComparedValue(value, ends, f"{sign}{number(difference.value)} ({span(difference)})", verdict)


def _metric_chart(
    name: MetricName, sources: Sequence[str], intervals: Sequence[Interval | None], draw: Charts
) -> Chart:
    """The intervals of one metric, a row for each source."""
    rows = {plain(source): found for source, found in zip(sources, intervals, strict=True) if found is not None}
    values = ", ".join(f"{source} {interval}" for source, interval in rows.items())
    caption = f"{name.better.capitalize()} is better." if name.better else ""
    size = (3.4, 0.9 + 0.3 * len(rows))
    return draw(name.title, _intervals(rows), f"{name.title}: {values}.", caption=caption, size=size)


def _intervals(rows: Mapping[str, Interval]) -> Callable[[Axes], None]:
    return lambda ax: metrics.plot_intervals(ax, rows)


def _curves(names: Sequence[str], evaluations: Sequence[Evaluation | None], draw: Charts) -> list[Chart]:
    """The risk-coverage curves and the ROC curves of all sources."""
    risks, detections = {}, {}
    for name, each in zip(names, evaluations, strict=True):
        if each is None:
            continue
        score = next(iter(scores(each.uncertainty).values()))
        loss = metrics.clip_loss(each.uncertainty.probability, each.target, each.task)
        risks[name] = metrics.risk_coverage(score, loss)
        if each.ood is not None:
            detections[name] = metrics.detection(each.uncertainty.entropy, each.ood.entropy)

    def plot_risks(ax: Axes) -> None:
        for name, curve in risks.items():
            curve.plot(ax, label=plain(name))

    def plot_detections(ax: Axes) -> None:
        for name, detection in detections.items():
            detection.plot(ax, label=plain(name))

    charts = []
    if risks:
        areas = ", ".join(f"{name} {curve.aurc:.3f}" for name, curve in risks.items())
        alt = f"Risk against coverage; area under the curve: {areas}."
        caption = "The least certain clips of each run are rejected first."
        charts.append(draw("Risk-coverage curve", plot_risks, alt, caption=caption))
    if detections:
        areas = ", ".join(f"{name} {each.auroc:.3f}" for name, each in detections.items())
        alt = f"True positive rate against false positive rate of the entropy; area under the curve: {areas}."
        caption = "Each curve runs over all thresholds of the entropy. The diagonal is chance."
        charts.append(draw("Out-of-distribution ROC curve", plot_detections, alt, caption=caption))
    return charts
