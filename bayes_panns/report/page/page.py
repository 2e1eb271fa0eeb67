"""The report: one HTML page for a run, a cross-validation or an evaluation, or to compare several of them.

The page needs nothing but itself: style, script, charts, pictures and sound are inside it, and its content security
policy forbids every request. What comes from data, such as labels and file names, is text in it and never markup.
"""

import base64
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes

from bayes_panns import __version__, metrics
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.core.files import whole_file
from bayes_panns.evaluations import Evaluation, compare
from bayes_panns.metrics import Interval
from bayes_panns.metrics.bootstrap import RESAMPLES
from bayes_panns.predictions import Draws, scores
from bayes_panns.report.page.charts import Chart, Charts, plain
from bayes_panns.report.page.clips import Room
from bayes_panns.report.page.meanings import HEADLINES, name, number, span
from bayes_panns.report.page.sections import Section, paragraph, sections
from bayes_panns.report.subjects import Data, Subject, read_subjects

logger = logging.getLogger(__name__)

BYTES = 7_000_000
"""What sound and pictures may take of a page, so that it stays below 10 MB."""

CLIPS = 4
"""How many clips of a kind a page shows; fewer where it is about several runs."""


@dataclass(frozen=True)
class Report:
    """A subject as the page shows it: the subject, what its facts are, and what it has to say."""

    key: str
    subject: Subject
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    warnings: Sequence[str]
    sections: Sequence[Section]


@dataclass(frozen=True)
class Line:
    """A metric of several subjects: its name, which way is better, and a cell each."""

    metric: str
    title: str
    arrow: str
    cells: Sequence["Compared"]


@dataclass(frozen=True)
class Compared:
    """A value and its interval; and the difference to the first subject, where they are of the same clips."""

    value: str
    ends: str
    difference: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Comparison:
    """Several subjects side by side."""

    names: Sequence[str]
    text: str
    lines: Sequence[Line]
    charts: Sequence[Chart]


def write_report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    stores: Sequence[str | Path] = (),
    folds: Sequence[int] | None = None,
    ood: Sequence[str | Path] = (),
    draws: Draws = 20,
    device: str = "auto",
    guide_function: str | None = None,
) -> Path:
    """Write a report: one HTML page, whole or not at all.

    With ``stores`` the posteriors are scored now, and a run keeps what came of it in ``evaluation/``. Without, a run's
    ``evaluation/`` is shown; where there is none, it is scored on the clips that it held out, if it did.

    Args:
        runs: Folders, each of a run, a posterior, an evaluation, or a cross-validation (a folder of runs).
        out: The file to write; by default ``report.html`` in the folder of a single run.
        stores: Files of clips with the posterior's labels.
        folds: The folds to score; by default all, and for a cross-validation those that each run was not fitted to.
        ood: Files of clips that show none of the labels.
        draws: Posterior draws a clip; 0 is one pass at the posterior mean, ``"moments"`` one that propagates moments.
        device: ``auto``, ``cpu`` or ``cuda``.
        guide_function: ``module:function`` of the guide, for a posterior that was fitted with one.

    Returns:
        The file.

    Raises:
        BayesPannsError: A folder is none of these or damaged, the clips do not fit, or there is no place for the file.
    """
    if not runs:
        raise BayesPannsError("no run to report on: name at least one folder")
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise BayesPannsError("a run is named twice; name each once")
    if out is None and len(runs) > 1:
        raise BayesPannsError("a report on several runs needs a place: name the file with -o")
    if ood and not stores:
        raise BayesPannsError("clips out of distribution are scored beside known ones: name those with --data")
    path = Path(runs[0]) / "report.html" if out is None else Path(out)
    if path.is_dir():
        raise BayesPannsError(f"{path}: is a folder; name the file to write, such as {path / 'report.html'}")
    if out is not None and not path.parent.is_dir():
        raise BayesPannsError(f"{path}: there is no folder {path.parent} to write it to; make it first")
    data = Data(stores, folds, ood, draws, device, guide_function)
    subjects = [subject for run in runs for subject in read_subjects(run, data)]
    logger.info(f"drawing {path}")
    text = render_page(subjects)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def render_page(subjects: Sequence[Subject]) -> str:
    """The page about some subjects, the first being what others are compared with; the same for the same subjects.

    Args:
        subjects: At least one.
    """
    names = _distinct([subject.name for subject in subjects])
    draw, room = Charts(), Room(BYTES)
    clips = max(1, CLIPS // -(-len(subjects) // 2))
    intervals = [_intervals(subject.evaluation) for subject in subjects]
    comparison = _compare(names, subjects, intervals, draw) if len(subjects) > 1 else None
    reports = []
    for place, (subject, found) in enumerate(zip(subjects, intervals, strict=True)):
        # What is left is shared by the subjects that are still to come.
        share = Room(room.left // (len(subjects) - place))
        given = share.left
        resamples = 0 if subject.evaluation is None else _resamples(subject.evaluation)
        parts, notes = sections(subject, found, draw, resamples=resamples, clips=clips, room=share)
        room.left -= given - share.left
        said = [note for part in subject.parts for note in part.notes]
        warnings = [warning for part in subject.parts for warning in part.warnings]
        reports.append(
            Report(
                key=f"run{place + 1}",
                subject=subject,
                facts=list(_facts(subject)),
                notes=list(dict.fromkeys([*said, *notes])),
                warnings=list(dict.fromkeys(warnings)),
                sections=parts,
            )
        )
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_read("template.html.j2")).render(
        title=" · ".join(names),
        names=names,
        reports=reports,
        comparison=comparison,
        style=Markup(_read("page.css")),
        script=Markup(script),
        script_digest=digest,
        version=__version__,
    )


def _read(name: str) -> str:
    return resources.files("bayes_panns.report.page").joinpath(name).read_text(encoding="utf-8")


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where two are the same."""
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, start=1)]


def _resamples(evaluation: Evaluation) -> int:
    """Fewer where a resample takes seconds."""
    return max(RESAMPLES // 10, min(RESAMPLES, 200_000_000 // evaluation.target.size))


def _intervals(evaluation: Evaluation | None) -> Mapping[str, Interval]:
    if evaluation is None:
        return {}
    return evaluation.intervals(resamples=_resamples(evaluation))


def _facts(subject: Subject) -> list[tuple[str, str]]:
    """What it is, how it was fitted and on what it was scored, as term and text."""
    part = subject.parts[0]
    facts = [("What", subject.kind if len(subject.parts) == 1 else f"{subject.kind} of {len(subject.parts)} runs")]
    if part.recipe is not None and part.recipe.description:
        facts.append(("Recipe", part.recipe.description))
    header, made = part.header, part.header.get("provenance", {})
    if header:
        guide = header.get("guide_function") or header["strategy"].get("description") or "a recipe's"
        facts += [
            ("Network", f"{header['net']}, {header['sample_rate']} Hz, clips of {header['clip_seconds']:g} s"),
            ("Guide", guide),
            ("Labels", f"{len(header['labels'])}, {header['task']}"),
        ]
    # An imported checkpoint was fitted elsewhere: its own provenance says so.
    fitted = "epochs" in made
    if "checkpoint" in made:
        facts.append(("Imported from", made["checkpoint"]))
    if fitted and len(subject.parts) == 1:
        folds = _folds(made.get("folds", "all"))
        facts.append(("Fitted to", f"{made['clips']} clips of {', '.join(made['data'])}{folds}"))
    if fitted:
        tempered = ", a tempered posterior" if made["tempered"] else ""
        stopped = "" if made["complete"] else ", interrupted"
        facts.append(("Fit", f"{made['epochs']:g} epochs, KL weight {made['kl_weight']:g}{tempered}{stopped}"))
    if "upstream" in made:
        upstream = made["upstream"]
        data = ", ".join(upstream["data"]) if "data" in upstream else upstream.get("checkpoint", "")
        facts.append(("Started from", f"{upstream['folder']} ({data})" if data else upstream["folder"]))
    evaluation = subject.evaluation
    if evaluation is not None:
        said = evaluation.provenance
        stores = ", ".join(Path(store).name for store in said.get("stores", [])) or "clips"
        folds = ", each by the run of its fold" if len(subject.scored) > 1 else _folds(said.get("folds", "all"))
        facts.append(("Scored on", f"{len(evaluation.names)} clips of {stores}{folds}"))
        if evaluation.ood is not None:
            stores = ", ".join(Path(store).name for store in said.get("ood", [])) or "clips"
            facts.append(("Out of distribution", f"{len(evaluation.ood_names)} clips of {stores}"))
        facts.append(("Draws", str(evaluation.metrics["draws"])))
    if "versions" in made:
        facts.append(("Versions", ", ".join(f"{package} {release}" for package, release in made["versions"].items())))
    return facts


def _folds(folds: str | Sequence[int]) -> str:
    if folds == "all":
        return ""
    return f", fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def _same_clips(a: Evaluation, b: Evaluation) -> bool:
    return (
        (a.names, a.labels, a.task) == (b.names, b.labels, b.task)
        and a.target.shape == b.target.shape
        and bool((a.target == b.target).all())
    )


def _compare(
    names: Sequence[str], subjects: Sequence[Subject], intervals: Sequence[Mapping[str, Interval]], draw: Charts
) -> Comparison:
    evaluations = [subject.evaluation for subject in subjects]
    first = evaluations[0]
    differences: list[Mapping[str, Interval]] = [{}]
    alike = []
    for run, other in zip(names[1:], evaluations[1:], strict=True):
        same = first is not None and other is not None and _same_clips(first, other)
        differences.append(_differences(first, other) if same and first is not None and other is not None else {})
        alike += [run] if same else []
    shown = [metric for metric in HEADLINES if any(metric in found for found in intervals)]
    if "cls/accuracy" in shown:
        shown.remove("cls/map")
    lines = []
    for metric in shown:
        title, better = name(metric)
        cells = [
            _compared(found.get(metric), differing.get(metric), better)
            for found, differing in zip(intervals, differences, strict=True)
        ]
        lines.append(Line(metric, title, {"higher": "↑", "lower": "↓"}.get(better, ""), cells))
    text = "Each run's numbers with their intervals."
    if alike:
        text += (
            f" {', '.join(alike)} and {names[0]} were scored on the same clips, so their differences have paired "
            f"intervals: an interval that holds 0 may be no difference."
        )
    if len(alike) < len(names) - 1:
        text += f" Where clips differ from those of {names[0]}, or nothing was scored, there is no difference to take."
    if first is not None:
        text += f" {paragraph(first, _resamples(first))}"
    return Comparison(names, text, lines, _comparing(names, evaluations, shown, intervals, draw))


def _differences(first: Evaluation, other: Evaluation) -> Mapping[str, Interval]:
    """The other's metrics less the first's, of the same clips."""
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
        resamples=_resamples(first),
    )


def _compared(interval: Interval | None, difference: Interval | None, better: str) -> Compared:
    if interval is None:
        return Compared("–", "")
    value, ends = number(interval.value), span(interval)
    if difference is None or not span(difference):
        return Compared(value, ends)
    verdict = ""
    if difference.low > 0 or difference.high < 0:
        up = "better" if better == "higher" else "worse"
        down = "worse" if better == "higher" else "better"
        verdict = "different" if not better else up if difference.low > 0 else down
    sign = "+" if difference.value > 0 else ""
    return Compared(value, ends, f"{sign}{number(difference.value)} ({span(difference)})", verdict)


def _comparing(
    names: Sequence[str],
    evaluations: Sequence[Evaluation | None],
    metrics: Sequence[str],
    intervals: Sequence[Mapping[str, Interval]],
    draw: Charts,
) -> list[Chart]:
    """Charts of all runs: a panel a metric, and their risk-coverage and ROC curves together."""
    made = []
    for metric in metrics:
        title, better = name(metric)
        rows = {plain(run): found[metric] for run, found in zip(names, intervals, strict=True) if metric in found}
        values = ", ".join(f"{run} {row}" for run, row in rows.items())
        caption = {"higher": "Higher is better.", "lower": "Lower is better.", "": ""}[better]
        panel = _rows(rows)
        size = (3.4, 0.9 + 0.3 * len(rows))
        made.append(draw(title[0].upper() + title[1:], panel, f"{title}: {values}.", caption=caption, size=size))
    scored = [(run, each) for run, each in zip(names, evaluations, strict=True) if each is not None]
    if scored:
        made.append(_risks(scored, draw))
    strange = [(run, each) for run, each in scored if each.ood is not None]
    if strange:
        made.append(_rocs(strange, draw))
    return made


def _rows(rows: Mapping[str, Interval]) -> Callable[[Axes], None]:
    return lambda ax: metrics.plot_intervals(ax, rows)


def _risks(scored: Sequence[tuple[str, Evaluation]], draw: Charts) -> Chart:
    curves = {}
    for run, each in scored:
        score = next(iter(scores(each.uncertainty).values()))
        loss = metrics.clip_loss(each.uncertainty.probability, each.target, each.task)
        curves[run] = metrics.risk_coverage(score, loss)

    def plot(ax: Axes) -> None:
        for run, curve in curves.items():
            curve.plot(ax, label=plain(run))

    areas = ", ".join(f"{run} {curve.aurc:.3f}" for run, curve in curves.items())
    caption = "The least certain clips of each run are given up first."
    return draw("Risk against coverage", plot, f"Risk over coverage; area under the curve: {areas}.", caption=caption)


def _rocs(strange: Sequence[tuple[str, Evaluation]], draw: Charts) -> Chart:
    found = {
        run: metrics.detection(each.uncertainty.entropy, each.ood.entropy)
        for run, each in strange
        if each.ood is not None
    }

    def plot(ax: Axes) -> None:
        for run, each in found.items():
            each.plot(ax, label=plain(run))

    areas = ", ".join(f"{run} {each.auroc:.3f}" for run, each in found.items())
    alt = f"Strange clips found over false alarms; area under the curve: {areas}."
    return draw("Out of distribution, by entropy", plot, alt)
