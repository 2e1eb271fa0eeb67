"""The sections of a page, one in each module; ``section(source, context)`` makes it, or None without content."""

from bayes_panns.core.errors import PosteriorError
from bayes_panns.report.page.content import Context, Section
from bayes_panns.report.page.sections import (
    calibration,
    clips,
    confusion,
    covariance,
    labels,
    metrics,
    ood,
    selection,
    summary,
    training,
    uncertainty,
    weights,
)
from bayes_panns.report.sources import Source

_ORDER = (
    summary,
    training,
    calibration,
    selection,
    uncertainty,
    ood,
    confusion,
    covariance,
    labels,
    clips,
    weights,
    metrics,
)


def make_sections(source: Source, context: Context) -> tuple[list[Section], list[str]]:
    """Make all sections about a source.

    Args:
        source: What they are about.
        context: What they share.

    Returns:
        The sections that have content; and notes on those that a missing or damaged posterior prevents.
    """
    made, notes = [], []
    for module in _ORDER:
        try:
            section = module.section(source, context)
        except PosteriorError as error:
            notes.append(f"“{module.TITLE}” is left out: {error}")
            continue
        if section is not None:
            made.append(section)
    return made, notes
