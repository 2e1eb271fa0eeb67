"""What ``doctor`` has found, as text."""

from collections.abc import Sequence
from itertools import groupby

from bayes_panns.core.choices import Health
from bayes_panns.core.findings import Finding, problems
from bayes_panns.report.formatting import count_of
from bayes_panns.report.text.layout import columns


def findings_text(findings: Sequence[Finding]) -> str:
    """Lines of areas, with a line for each finding and one for what to do about it.

    Args:
        findings: In the order in which they are shown.

    Example:
        >>> print(findings_text([Finding("decoders", "ffmpeg", Health.NOTE, "not found", "install ffmpeg")]), end="")
        decoders
          note  ffmpeg  not found
                        -> install ffmpeg
        <BLANKLINE>
        no problem, 1 note
    """
    text = ""
    name = max((len(each.name) for each in findings), default=0)
    mark = max((len(each.health) for each in findings), default=0)
    for area, inside in groupby(findings, key=lambda each: each.area):
        text += f"{area}\n"
        for each in inside:
            row = [f"  {each.health:<{mark}}", f"{each.name:<{name}}", each.text]
            text += columns([row, *([["", "", f"-> {each.todo}"]] if each.todo else [])])
        text += "\n"
    notes = sum(each.health == Health.NOTE for each in findings)
    wrong = problems(findings)
    return f"{text}{count_of(wrong, 'problem') if wrong else 'no problem'}, {count_of(notes, 'note')}\n"
