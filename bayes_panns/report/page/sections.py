"""The sections of a page: what there is to say of a subject, as text, charts, tables and clips."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bayes_panns import metrics
from bayes_panns.core.errors import PosteriorError
from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import Interval
from bayes_panns.predictions import scores as uncertainty_scores
from bayes_panns.report.figures import NAMES, uncertainty_histograms
from bayes_panns.report.page import charts
from bayes_panns.report.page.charts import Chart, Charts
from bayes_panns.report.page.clips import KINDS, Card, Room, cards, right
from bayes_panns.report.page.meanings import Headline, every, headlines, number, percent, span
from bayes_panns.report.subjects import Part, Subject

WORST = 6
"""How many labels get a reliability diagram of their own."""

PAIRS = 15
"""How many pairs of labels the tables of confusions and covariances list."""

CONFUSION = 60
"""The most labels of a confusion matrix."""

SCALE = "scale/"
"""What the posterior's scales are called in ``metrics.jsonl``, before the parameter's name."""

_WEIGHTS = 1 << 20
"""The most weights of a tensor that its quantiles are taken of."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it shows, what it sorts by, and the length of its bar, a share of 1, if it has one."""

    text: str
    key: float | str
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that sorts; the first cell of a row is its header.

    Attributes:
        caption: What it holds.
        columns: A heading each, and what it means or nothing.
        rows: Its cells.
        folded: Whether it is folded away until asked for.
    """

    caption: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


@dataclass(frozen=True)
class Kind:
    """Clips of a kind: a heading, what they are, and their cards."""

    title: str
    text: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        key: Its name in links.
        title: Its heading.
        text: How to read it; may be empty.
        headlines: Numbers in large print.
        charts: Its charts.
        smaller: Charts of the same for one label after the other.
        tables: Its tables.
        kinds: Its clips.
    """

    key: str
    title: str
    text: str = ""
    headlines: Sequence[Headline] = ()
    charts: Sequence[Chart] = ()
    smaller: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    kinds: Sequence[Kind] = ()


def sections(
    subject: Subject,
    intervals: Mapping[str, Interval],
    draw: Charts,
    *,
    resamples: int,
    clips: int,
    room: Room,
) -> tuple[list[Section], list[str]]:
    """All that there is to say of a subject.

    Args:
        subject: What it is about.
        intervals: The metrics of its evaluation; empty where it has none.
        draw: Draws the charts.
        resamples: How many the intervals come from.
        clips: How many clips of each kind to show.
        room: How many bytes of sound and pictures the page still takes.

    Returns:
        The sections, without those that there is nothing to put into; and what a reader has to know besides.
    """
    evaluation = subject.evaluation
    found: list[Section | None] = []
    notes: list[str] = []
    if evaluation is not None:
        found.append(_numbers(evaluation, intervals, resamples))
    found.append(_training(subject, draw))
    if evaluation is not None:
        found += [
            _calibration(subject, evaluation, draw),
            _selection(evaluation, draw),
            _split(evaluation, draw),
            _strangers(evaluation, intervals, draw),
            _confusion(evaluation, draw),
            _covariance(evaluation),
            _labels(evaluation),
        ]
        try:
            found.append(_clips(subject, clips, room))
        except PosteriorError as error:
            notes.append(f"Clips cannot be shown: {error}")
    try:
        found.append(_weights(subject, draw))
    except PosteriorError as error:
        notes.append(f"Nothing is shown of the weights: {error}")
    if evaluation is not None:
        found.append(_metrics(evaluation, intervals))
    return [section for section in found if section is not None], notes


def paragraph(evaluation: Evaluation, resamples: int) -> str:
    """How the intervals of an evaluation came about, from how many resamples."""
    clips, recordings = len(evaluation.names), len(np.unique(evaluation.groups))
    unit = f"the {recordings} recordings that the {clips} clips were cut from"
    if recordings == clips:
        unit = f"the {clips} clips"
    return (
        f"Intervals are 95 % bootstrap intervals, from {resamples} resamples of "
        f"{unit}: how far a number could be off for the clips that happened to be there. Another fit would move it too."
    )


def _numbers(evaluation: Evaluation, intervals: Mapping[str, Interval], resamples: int) -> Section:
    said = paragraph(evaluation, resamples)
    return Section("numbers", "In numbers", said, headlines=headlines(evaluation, intervals))


def _metrics(evaluation: Evaluation, intervals: Mapping[str, Interval]) -> Section:
    rows = []
    for metric, interval in intervals.items():
        line = every(evaluation, metric, interval)
        arrow = {"higher": "↑", "lower": "↓"}.get(line.better, "")
        cells = (metric, f"{line.title} {arrow}".strip(), line.value, line.ends, line.meaning)
        keys: tuple[float | str, ...] = (metric, line.title, interval.value, interval.low, line.meaning)
        rows.append([Cell(text, key) for text, key in zip(cells, keys, strict=True)])
    columns = (("metric", ""), ("name", "An arrow says which way is better."), ("value", ""), ("95 % interval", ""))
    table = Table("Every metric with its interval", (*columns, ("what it means", "")), rows, folded=True)
    return Section("metrics", "Every metric", "Under the names of bayes-panns evaluate --json.", tables=[table])


def _training(subject: Subject, draw: Charts) -> Section | None:
    runs = [part.metrics for part in subject.parts if part.metrics]
    if not runs:
        return None
    logged = [{key for line in lines for key, value in line.items() if value is not None} for lines in runs]
    keys = [key for key in dict.fromkeys(key for line in runs[0] for key in line) if all(key in run for run in logged)]
    panels: dict[str, dict[str, str]] = {"NLL / nats per clip": {"nll": "training", "val/nll": "validation"}}
    panels |= {"KL to the prior / nats": {"kl": "KL"}, "Weight of the KL": {"kl_weight": "weight"}}
    for key in keys:
        name = key.removeprefix("val/")
        if name not in (key, "nll"):
            known = [NAMES[f"{family}/{name}"][0] for family in ("cls", "cal") if f"{family}/{name}" in NAMES]
            title = known[0] if known else name.replace("_", " ")
            panels[f"Validation {title}"] = {key: name}
    made = []
    for title, curves in panels.items():
        there = {key: name for key, name in curves.items() if key in keys}
        if there:
            ends = "; ".join(f"{name} {_from_to(runs[0], key)}" for key, name in there.items())
            made.append(draw(title, charts.curve(runs, there), f"{title} over the epochs: {ends}.", size=(3.4, 2.4)))
    groups = _groups(key for key in keys if key.startswith(SCALE))
    if groups:
        first, *_, last = [*groups, *groups]
        alt = f"Posterior scale over the epochs, a line for each part of the network from {first} to {last}."
        caption = "The geometric mean of the posterior's standard deviations, from the first layer to the last."
        lines = charts.scales(runs[0], groups)
        made.append(draw("Posterior scale by layer", lines, alt, caption=caption, size=(3.4, 2.4)))
    text = "What the fit minimised: the NLL and the KL divergence to the prior, times its weight."
    if len(runs) > 1:
        text += f" A line for each of the {len(runs)} runs" + ("; the scales are the first run's." if groups else ".")
    if not groups:
        text += " The log has no posterior scales: it is an older run's, or no weight is variational."
    return Section("training", "Training", text, charts=made)


def _calibration(subject: Subject, evaluation: Evaluation, draw: Charts) -> Section:
    p, target, task = evaluation.uncertainty.probability, evaluation.target, evaluation.task
    bins = metrics.reliability(p, target, task)
    split = metrics.brier_split(p, target, task)
    made = [
        draw(
            "Reliability",
            bins.plot,
            f"Reliability diagram, ECE {bins.error:.3f}. {_binned(bins)}",
            caption="Bars that end on the diagonal keep their word. The strip on top counts the predictions.",
            size=(3.4, 3.2),
        ),
        draw(
            "What the Brier score is made of",
            split.plot,
            f"Brier score: uncertainty {split.uncertainty:.3f}, less resolution {split.resolution:.3f}, plus "
            f"reliability {split.reliability:.3f}.",
            caption="Resolution is gained by telling clips apart, reliability lost by saying wrong probabilities.",
            size=(3.4, 3.2),
        ),
    ]
    calibration = subject.parts[0].header.get("calibration")
    if calibration and len(subject.parts) == 1:
        quality = metrics.set_quality(metrics.label_sets(p, calibration["threshold"]), target)
        caption = (
            f"Every label above {calibration['threshold']:.3f}, to hold {percent(calibration['coverage'])} of the "
            f"true labels. Fitted, with the temperature {calibration['temperature']:.3f}, on clips of "
            f"{', '.join(calibration['data'])}."
        )
        alt = f"Sizes of label sets: coverage {quality.coverage:.3f}, {quality.size:.2f} labels a set."
        made.append(draw("Label sets", quality.plot, alt, caption=caption))
    error = metrics.classwise_ece(p, target)
    each = metrics.classwise_reliability(p, target)
    smaller = []
    for k in [k for k in np.argsort(-error, kind="stable").tolist() if target[:, k].any()][:WORST]:
        label = evaluation.labels[k]
        alt = f"Reliability diagram of {label}, calibration error {error[k]:.3f}. {_binned(each[k])}"
        smaller.append(draw(f"{label}: ECE {error[k]:.3f}", _small(each[k].plot), alt, size=(3.4, 2.3)))
    text = f"Whether what is said to be {percent(0.8)} sure comes true four times in five."
    if len(smaller) < len(evaluation.labels):
        text += f" Below, the {len(smaller)} labels whose own probability is farthest from that."
    return Section("calibration", "Calibration", text, charts=made, smaller=smaller)


def _selection(evaluation: Evaluation, draw: Charts) -> Section:
    one = evaluation.task == "one-of-k"
    loss = metrics.clip_loss(evaluation.uncertainty.probability, evaluation.target, evaluation.task)
    scores = uncertainty_scores(evaluation.uncertainty)
    by = {name: scores[name] for name in ("confidence", "entropy", "aleatoric", "epistemic") if name in scores}
    if one:
        del by["entropy"]
    by = {name: score for name, score in by.items() if np.ptp(score) > 0}
    curves = {name: metrics.risk_coverage(score, loss) for name, score in by.items()}
    what = "share of errors" if one else "mean loss (1 − label-ranking average precision)"

    def plot(ax: Axes) -> None:
        for name, curve in curves.items():
            curve.plot(ax, label=f"by {name}")

    areas = ", ".join(f"{name} {curve.aurc:.3f}" for name, curve in curves.items())
    certain = metrics.pavpu(evaluation.uncertainty.entropy, loss > 0)
    half = certain.at(certain.middle)
    made = [
        draw(
            "Risk against coverage",
            plot,
            f"The {what} among the clips kept over the share of clips kept; area under the curve by {areas}.",
            caption="The least certain clips are given up first: where a curve falls to the left, that helps.",
        ),
        draw(
            "Certain and right, or not and wrong",
            lambda ax: certain.plot(ax, label="entropy"),
            f"PAvPU over thresholds of the entropy; half-way between the lowest and the highest {half:.3f}.",
            caption="PAvPU: the share of clips that a threshold on the entropy puts on the side where they belong.",
        ),
    ]
    rows = []
    for share in (1.0, 0.9, 0.75, 0.5, 0.25):
        kept = max(1, round(share * len(loss)))
        risks = [(float(curve.risk[kept - 1]), name) for name, curve in curves.items()]
        rows.append([Cell(f"{percent(share)} ({kept})", share), *[Cell(number(risk), risk) for risk, _ in risks]])
    table = Table(
        f"Risk, the {what}, at some coverages", [("clips kept", ""), *[(f"by {name}", "") for name in curves]], rows
    )
    text = "What is gained by handing the least certain clips to a person."
    return Section("selection", "Knowing when it is wrong", text, charts=made, tables=[table])


def _split(evaluation: Evaluation, draw: Charts) -> Section:
    hits = right(evaluation)
    names = ("right", "wrong") if evaluation.task == "one-of-k" else ("top label true", "top label false")
    made = []
    for title in ("aleatoric", "epistemic"):
        values = evaluation.uncertainty.per_clip()[title]
        groups = {names[0]: values[hits], names[1]: values[~hits]}
        if evaluation.ood is not None:
            groups["out of distribution"] = evaluation.ood.per_clip()[title]
        middle = ", ".join(f"{name} {np.median(group):.3f}" for name, group in groups.items() if len(group))
        made.append(
            draw(
                f"{title.capitalize()} uncertainty",
                _histogram(groups, f"{title} variance of a clip"),
                f"Histogram of the clips' {title} uncertainty; medians: {middle}.",
                size=(3.4, 2.8),
            )
        )
    text = (
        "By the law of total variance: aleatoric is what every draw of the weights finds ambiguous in a sound; "
        "epistemic is what the draws disagree on, for want of data."
    )
    return Section("uncertainty", "Where the uncertainty lies", text, charts=made)


def _strangers(evaluation: Evaluation, intervals: Mapping[str, Interval], draw: Charts) -> Section | None:
    if evaluation.ood is None:
        return None
    inside, outside = uncertainty_scores(evaluation.uncertainty), uncertainty_scores(evaluation.ood)
    shown = [name for name in ("entropy", "mutual_information", "aleatoric", "epistemic") if np.ptp(inside[name]) > 0]
    found = {name: metrics.detection(inside[name], outside[name]) for name in shown}

    def plot(ax: Axes) -> None:
        for name, each in found.items():
            each.plot(ax, label=name.replace("_", " "))

    areas = ", ".join(f"{name.replace('_', ' ')} {each.auroc:.3f}" for name, each in found.items())
    chart = draw(
        "ROC",
        plot,
        f"Strange clips found over false alarms; area under the curve by {areas}.",
        caption="Each curve runs over all thresholds of a score. The diagonal is guessing.",
    )
    clips = len(evaluation.ood_names)
    text = f"Whether {clips} clips of none of the labels stand out as more uncertain."
    if evaluation.provenance.get("pooled", 1) > 1:
        text += " Each fold's posterior scored them, so each clip counts more than once."
    rows = []
    for name in found:
        suffix = "" if name == "entropy" else f"_{name}"
        measured = [intervals[f"ood/{metric}{suffix}"] for metric in ("auroc", "aupr", "fpr95")]
        values = [Cell(f"{number(each.value)} ({span(each)})", each.value) for each in measured]
        rows.append([Cell(name.replace("_", " "), name), *values])
    columns = (
        ("score", ""),
        ("AUROC", "Higher is better."),
        ("AUPR", "Higher is better."),
        ("FPR at 95 % TPR", "Lower."),
    )
    table = Table("How well each score tells them apart, with 95 % intervals", columns, rows)
    return Section("ood", "Out of distribution", text, charts=[chart], tables=[table])


def _confusion(evaluation: Evaluation, draw: Charts) -> Section | None:
    if evaluation.task != "one-of-k":
        return None
    said, true = evaluation.uncertainty.probability.argmax(axis=1), evaluation.target.argmax(axis=1)
    size = len(evaluation.labels)
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (true, said), 1)
    wrong = counts - np.diag(counts.diagonal())
    made = []
    if size <= CONFUSION:
        side = min(6.4, max(3.6, 1.4 + 0.34 * size))
        matrix = charts.confusion(counts, evaluation.labels)
        hits = f"{counts.diagonal().sum()} of {counts.sum()} clips on the diagonal"
        alt = f"Confusion matrix: {hits}. {_worst_pairs(evaluation, wrong)}"
        made.append(draw("Confusion matrix", matrix, alt, size=(side, side), wide=True))
    pairs = [pair for pair in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS].tolist() if wrong.flat[pair]]
    rows = []
    for pair in pairs:
        row, column = divmod(pair, size)
        share = wrong[row, column] / counts[row].sum()
        labels = [Cell(evaluation.labels[k], evaluation.labels[k]) for k in (row, column)]
        rows.append([*labels, Cell(str(wrong[row, column]), float(wrong[row, column])), _share(share)])
    columns = (("true label", ""), ("given label", ""), ("clips", ""), ("share of the label's clips", ""))
    tables = [Table("The most frequent confusions", columns, rows)] if rows else []
    text = "A row is a true label, a column what was said. Shades are shares of the row."
    return Section("confusion", "Confusions", text, charts=made, tables=tables)


def _covariance(evaluation: Evaluation) -> Section | None:
    if evaluation.task == "one-of-k" or evaluation.uncertainty.covariance is None:
        return None
    mean = evaluation.uncertainty.covariance.mean(axis=0)
    deviation = np.sqrt(np.maximum(mean.diagonal(), 1e-300))
    rows, columns = np.triu_indices(len(mean), k=1)
    order = np.argsort(-np.abs(mean[rows, columns]), kind="stable")[:PAIRS]
    table = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        covariance = float(mean[row, column])
        if covariance == 0:
            continue
        correlation = covariance / float(deviation[row] * deviation[column])
        together = int((evaluation.target[:, row] & evaluation.target[:, column]).sum())
        labels = [Cell(evaluation.labels[k], evaluation.labels[k]) for k in (row, column)]
        shown = [Cell(f"{covariance:.3g}".replace("-", "−"), covariance), Cell(number(correlation), correlation)]
        table.append([*labels, *shown, Cell(str(together), float(together))])
    if not table:
        return None
    headings = (
        ("label", ""),
        ("with", ""),
        ("epistemic covariance", "Averaged over the clips."),
        ("correlation", "Of the average covariance."),
        ("clips with both", ""),
    )
    text = (
        "Labels on which the draws of the weights err together: where the covariance is positive, a draw that raises "
        "one raises the other; where it is negative, they compete."
    )
    caption = "The strongest epistemic covariances"
    return Section("covariance", "Labels confused together", text, tables=[Table(caption, headings, table)])


def _labels(evaluation: Evaluation) -> Section:
    p, target, said = evaluation.uncertainty.probability, evaluation.target, evaluation.uncertainty
    one = evaluation.task == "one-of-k"
    precision, curve = metrics.average_precision(p, target), metrics.auc(p, target)
    error = metrics.classwise_ece(p, target)
    given = np.eye(p.shape[1], dtype=bool)[p.argmax(axis=1)] if one else p >= 0.5
    hits = (given & target).sum(axis=0)
    positives, named = target.sum(axis=0), given.sum(axis=0)
    columns: dict[str, tuple[str, NDArray]] = {
        "clips": ("How many have the label.", positives),
        "recall": (
            "The share of them that get it." + ("" if one else " At a threshold of 0.5."),
            _ratio(hits, positives),
        ),
        "precision": ("The share of right ones among those that get it.", _ratio(hits, named)),
        "AP": ("Average precision.", precision),
        "AUC": ("Area under the ROC curve.", curve),
        "ECE": ("Calibration error of the label's probability.", error),
        "aleatoric": ("Mean variance over the label's own clips.", _over(said.aleatoric, target)),
        "epistemic": ("Mean variance over the label's own clips.", _over(said.epistemic, target)),
    }
    largest = {name: max(np.nanmax(values, initial=0), 1e-300) for name, (_, values) in columns.items()}
    bars = {"recall": 1.0, "precision": 1.0, "AP": 1.0, "ECE": largest["ECE"]}
    bars |= {name: largest[name] for name in ("aleatoric", "epistemic")}
    rows = []
    for k, label in enumerate(evaluation.labels):
        row = [Cell(label, label)]
        for name, (_, values) in columns.items():
            value = float(values[k])
            text = "–" if np.isnan(value) else str(int(value)) if name == "clips" else number(value)
            bar = None if name not in bars or np.isnan(value) else value / bars[name]
            row.append(Cell(text, value, bar))
        rows.append(row)
    headings = [("label", ""), *[(name, hint) for name, (hint, _) in columns.items()]]
    text = "Press a heading to sort. A dash stands where a label has no clips to say it of."
    return Section("labels", "Label by label", text, tables=[Table("Every label", headings, rows)])


def _clips(subject: Subject, count: int, room: Room) -> Section | None:
    found, said = cards(subject, count, room)
    if not found:
        return None
    kinds = [Kind(*KINDS[kind], cards=made) for kind, made in found.items()]
    silent = any(not card.audio for made in found.values() for card in made)
    text = (
        f"{said} Rails run from 0 to 1. A clip stands under the first heading that fits it. The spectrograms are the "
        "log-mels that the network hears, 70 dB from light to dark."
    )
    if silent:
        text += " Some clips have no sound, to keep the page small."
    return Section("clips", "Clips to look into", text, kinds=kinds)


def _weights(subject: Subject, draw: Charts) -> Section | None:
    parts = [part for part in subject.parts if part.posterior is not None]
    measured = [found for part in parts if (found := _signal_to_noise(part))]
    if not measured:
        if not parts:
            return None
        return Section(
            "weights", "Weights", "No weight has a Normal posterior of its own, so there is no |loc| / scale."
        )
    names = list(measured[0])
    quantiles = {name: np.mean([found[name][0] for found in measured], axis=0) for name in names}
    below = {name: float(np.mean([found[name][1] for found in measured])) for name in names}
    count = {name: measured[0][name][2] for name in names}
    total = sum(count.values())
    lost = sum(below[name] * count[name] for name in names) / total
    chart = draw(
        "Signal-to-noise by layer",
        charts.signal_to_noise(quantiles),
        "Quantiles of |loc| / scale of each weight tensor. Medians: "
        + ", ".join(f"{name} {values[2]:.2f}" for name, values in quantiles.items())
        + ".",
        caption="Thin: 5 to 95 % of a tensor's weights; thick: 25 to 75 %; dot: the median. The first layer is on top.",
        size=(6.4, 0.8 + 0.24 * len(names)),
        wide=True,
    )
    rows = [
        [
            Cell(name, float(place)),
            Cell(f"{count[name]:,}", float(count[name])),
            *[Cell(number(float(value)), float(value)) for value in quantiles[name]],
            _share(below[name]),
        ]
        for place, name in enumerate(names)
    ]
    columns = [
        ("weight", ""),
        ("weights", "How many."),
        *[(f"{q} %", "Quantile of |loc| / scale.") for q in (5, 25, 50, 75, 95)],
    ]
    table = Table("Signal-to-noise by layer", [*columns, ("below 1", "The share of its weights.")], rows, folded=True)
    text = (
        f"{total:,} weights have a posterior each. {percent(lost)} of them have a |loc| below their scale: the "
        "data say little of them, and a layer of many could do with fewer."
    )
    if len(measured) > 1:
        text += f" Quantiles are averages over the {len(measured)} posteriors."
    return Section("weights", "Weights", text, charts=[chart], tables=[table])


def _signal_to_noise(part: Part) -> dict[str, tuple[NDArray[np.float64], float, int]]:
    """Of each weight tensor: quantiles of |loc| / scale, the share below 1, and how many weights it has."""
    found = {}
    for name, (loc, scale) in part.load().gaussians().items():
        ratio = (loc.abs() / scale).flatten()
        # Regularly spaced weights of a large tensor stand for all.
        sample = ratio[:: -(-len(ratio) // _WEIGHTS)].double().numpy()
        quantiles = np.quantile(sample, (0.05, 0.25, 0.5, 0.75, 0.95))
        found[name] = (np.maximum(quantiles, 1e-6), float((sample < 1).mean()), len(ratio))
    return found


def _groups(keys: Iterable[str]) -> dict[str, list[str]]:
    """The keys of the scales by the part of the network that the weights belong to, in order."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        module = key.removeprefix(SCALE).split(".")
        name = ".".join(module[:2]) if module[0] == "resnet" else module[0]
        groups.setdefault(name, []).append(key)
    return groups


def _histogram(groups: Mapping[str, NDArray[np.floating]], label: str) -> Callable[[Axes], None]:
    return lambda ax: uncertainty_histograms(ax, groups, label)


def _small(plot: Callable[[Axes], None]) -> Callable[[Axes], None]:
    """A reliability diagram of a kind that the page has explained before, without what it need not say again."""

    def draw(ax: Axes) -> None:
        plot(ax)
        legend = ax.get_legend()
        if legend is not None:
            legend.remove()
        ax.set_ylabel("share that have it")
        for strip in ax.child_axes:
            strip.set_ylabel("")
            strip.tick_params(axis="y", which="both", left=False, labelleft=False)

    return draw


def _from_to(lines: Sequence[Mapping[str, float]], key: str) -> str:
    values = [line[key] for line in lines if line.get(key) is not None]
    return f"from {values[0]:.4g} to {values[-1]:.4g}"


def _binned(bins: metrics.Reliability) -> str:
    """The bins of a reliability diagram, in words."""
    filled = np.flatnonzero(bins.count)
    shown = [f"{bins.confidence[b]:.2f} came true {bins.frequency[b]:.2f} ({bins.count[b]})" for b in filled]
    return f"Mean confidence, how often it came true and how many: {', '.join(shown)}."


def _worst_pairs(evaluation: Evaluation, wrong: NDArray[np.int_]) -> str:
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    if not wrong[row, column]:
        return "There are no confusions."
    labels = evaluation.labels
    return f"Most often {labels[row]} is taken for {labels[column]}, {wrong[row, column]} times."


def _share(share: float) -> Cell:
    return Cell(percent(share), float(share), float(share))


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    """NaN where there is nothing to have a share of."""
    return part / np.where(whole, whole, np.nan)


def _over(values: NDArray[np.float64], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of each label's values over the clips that have it, ``(K,)``."""
    return _ratio((values * target).sum(axis=0), target.sum(axis=0))
