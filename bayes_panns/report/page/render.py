"""The report: one HTML page about a run, a cross-validation or an evaluation, or a comparison of several.

The page is self-contained: style, script, charts, pictures and sound are inside it, and its content security policy
forbids every request. Text from data, such as labels and file names, is escaped and never becomes markup.
"""

import base64
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bayes_panns import __version__
from bayes_panns.core.choices import Precision
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.core.files import require_parent, whole_file
from bayes_panns.core.text import readable
from bayes_panns.jobs import RunFolder
from bayes_panns.predictions import Draws
from bayes_panns.report.formatting import exact
from bayes_panns.report.page.cards import MediaBudget
from bayes_panns.report.page.charts import Charts
from bayes_panns.report.page.compare import compare_sources
from bayes_panns.report.page.content import Context, Section
from bayes_panns.report.page.facts import facts_of
from bayes_panns.report.page.intervals import intervals_of, resamples_for
from bayes_panns.report.page.look import shared_style
from bayes_panns.report.page.sections import make_sections
from bayes_panns.report.reading import read_sources
from bayes_panns.report.sources import Scoring, Source

logger = logging.getLogger(__name__)

MEDIA_BYTES = 7_000_000
"""The bytes that sound and pictures may take, so that a page stays below 10 MB."""

CLIPS = 4
"""How many clips a page shows for each reason; fewer where it compares several sources."""


@dataclass(frozen=True)
class Report:
    """What the page shows of one source: a key for links, facts, notes, warnings and sections."""

    key: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    warnings: Sequence[str]
    sections: Sequence[Section]


def write_report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    stores: Sequence[str | Path] = (),
    folds: Sequence[int] | None = None,
    ood: Sequence[str | Path] = (),
    draws: Draws | None = None,
    device: str = "auto",
    precision: Precision | str = Precision.FLOAT32,
    guide_function: str | None = None,
) -> Path:
    """Write a report: one HTML page, whole or not at all.

    With ``stores`` the posteriors are scored now. A run keeps the result in ``evaluation/`` if it has none yet; an
    evaluation that exists is never replaced. Without ``stores`` a run's ``evaluation/`` is shown; if there is none, the
    clips that it held out are scored.

    Args:
        runs: Folders, each of a run, a posterior, an evaluation, or a cross-validation (a folder of runs).
        out: The file to write; by default ``report.html`` in the folder of a single run.
        stores: Files of clips with the posterior's labels.
        folds: The folds to score; by default all, and for a cross-validation those that each run was not fitted to.
        ood: Files of out-of-distribution clips, which have none of the labels.
        draws: Posterior draws per clip; 0 is one pass at the posterior mean, ``"moments"`` propagates moments.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: What the networks compute with: ``float32`` or ``bf16``.
        guide_function: ``module:function`` of the guide, for a posterior that was fitted with one.

    Returns:
        The file.

    Raises:
        OutputError: The file cannot be written; found out before anything is scored.
        BayesPannsError: A folder is none of these or damaged, or the clips do not fit.
    """
    if not runs:
        raise BayesPannsError("no run to report on; name at least one folder")
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise BayesPannsError("a run is named twice; name each run once")
    if out is None and len(runs) > 1:
        raise BayesPannsError("a report on several runs has no default place; name the file with -o")
    if folds is not None and not stores:
        raise BayesPannsError("folds are those of clips to score now; name these with --data")
    if ood and not stores:
        raise BayesPannsError("out-of-distribution clips need known clips to compare with; name these with --data")
    path = RunFolder(Path(runs[0])).report if out is None else Path(out)
    if out is not None or path.is_dir():
        require_parent(path)
    scoring = Scoring(stores, folds, ood, draws, device, precision, guide_function)
    sources = [source for run in runs for source in read_sources(run, scoring)]
    logger.info(f"drawing {path}")
    text = render_page(sources)
    with whole_file(path) as part:
        part.write_text(readable(text), encoding="utf-8")
    return path


def render_page(sources: Sequence[Source]) -> str:
    """The page about some sources, as HTML; the same sources make the same page.

    Args:
        sources: At least one; others are compared with the first.
    """
    names = _distinct([source.name for source in sources])
    draw, budget = Charts(), MediaBudget(MEDIA_BYTES)
    clips = max(1, CLIPS // -(-len(sources) // 2))
    intervals = [intervals_of(source.evaluation) for source in sources]
    comparison = None
    if len(sources) > 1:
        comparison = compare_sources(names, [source.evaluation for source in sources], intervals, draw)
    reports = []
    for place, (source, found) in enumerate(zip(sources, intervals, strict=True)):
        # The sources that are still to come share what is left.
        given = budget.left // (len(sources) - place)
        share = MediaBudget(given)
        resamples = 0 if source.evaluation is None else resamples_for(source.evaluation)
        sections, notes = make_sections(source, Context(found, resamples, draw, clips, share))
        budget.left -= given - share.left
        warnings = [warning for part in source.parts for warning in part.warnings]
        notes = [*(note for part in source.parts for note in part.notes), *notes]
        reports.append(
            Report(
                key=f"run{place + 1}",
                facts=facts_of(source),
                notes=list(dict.fromkeys(notes)),
                warnings=list(dict.fromkeys(warnings)),
                sections=sections,
            )
        )
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["exact"] = exact
    return environment.from_string(_read("template.html.j2")).render(
        title=" · ".join(names),
        names=names,
        reports=reports,
        comparison=comparison,
        style=Markup(shared_style() + "\n" + _read("page.css")),
        script=Markup(script),
        script_digest=digest,
        version=__version__,
    )


def _read(name: str) -> str:
    return resources.files("bayes_panns.report.page").joinpath(name).read_text(encoding="utf-8")


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number where two are equal."""
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, start=1)]
