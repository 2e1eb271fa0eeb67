"""The tables of the decisions study, in Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.decisions.counting import METHODS
from benchmarks.decisions.measured import RECORDINGS
from benchmarks.decisions.predicted import HEAD, LOGISTIC

_NAMES = {
    (HEAD, "bound"): "decisions",
    (HEAD, "no bound"): "held-out threshold, no bound",
    (HEAD, "0.5"): "fixed threshold 0.5",
    (LOGISTIC, "bound"): "logistic regression, same rule",
}


def tables(record: Mapping[str, Any]) -> str:
    """All tables of a record, as text."""
    return "\n".join(_lines(record)) + "\n"


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield "# Decisions on recordings of a shifted kind"
    yield ""
    yield (
        "A last layer (`rotated-head`) on mn04's embeddings is fitted to some folds, decisions are fitted to others, "
        "and a fold that is in neither is tested: as it is, resampled to 16 or 8 kHz and back, and with pink noise at "
        "20, 10 and 0 dB. Precision and its 95 % interval (bootstrap over recordings) are of the calls of all tested "
        "folds together. `short` counts the tested folds whose precision is below what was asked, `told` those whose "
        "recordings are said to differ from the held-out clips, `short and told` those that are both. Made by "
        "`python -m benchmarks decisions`."
    )
    for name, part in record["divisions"].items():
        yield ""
        yield f"## {name}"
        yield ""
        yield "| asked | rule | shift | precision reached | decided | short | told | short and told |"
        yield "|---|---|---|---|---|---|---|---|"
        for row in part["rows"]:
            reached = row["precision"]
            shown = "nothing decided" if reached is None else f"{reached[0]:.3f} ({reached[1]:.3f} to {reached[2]:.3f})"
            of = row["splits"]
            yield (
                f"| {row['asked']:g} | {_NAMES[row['model'], row['rule']]} | {row['shift']} | {shown} | "
                f"{row['decided']:.0%} | {row['short']} of {of} | {row['told']} of {of} | {row['short_and_told']} |"
            )
    yield ""
    yield "## Sounds of other kinds"
    yield ""
    yield (
        f"How each score finds near sounds: AUROC, and the share of near clips and of tested clips outside, at a limit "
        f"that 1 % of the held-out clips exceed. The score was chosen on {record['chosen_on']}."
    )
    yield ""
    yield "| division | score | AUROC | near outside | tested outside |"
    yield "|---|---|---|---|---|"
    for name, part in record["divisions"].items():
        for score, row in part["near"].items():
            yield f"| {name} | {score} | {row['auroc']:.3f} | {row['near']:.1%} | {row['like']:.1%} |"
    yield ""
    yield "## The test that recordings are like the held-out clips"
    yield ""
    yield f"How often {RECORDINGS} recordings of a tested fold, drawn at random, are said to differ, at a level of 5 %."
    yield ""
    shifts = list(next(iter(record["divisions"].values()))["test"])
    yield f"| division | {' | '.join(shifts)} |"
    yield "|---" * (len(shifts) + 1) + "|"
    for name, part in record["divisions"].items():
        shares = " | ".join(f"{part['test'][shift]:.0%}" for shift in shifts)
        yield f"| {name} | {shares} |"
    yield ""
    yield "## Counts"
    yield ""
    yield (
        "Sets of 200 clips, whole recordings of a tested fold in random shares of the labels. The mean absolute error "
        "of the count of a label, in clips; how often the 90 % interval holds the truth, with recordings allowed for "
        "and with each clip on its own; and the mean width of the intervals."
    )
    yield ""
    yield f"| division | shift | {' | '.join(METHODS)} | held | held, clips alone | width |"
    yield "|---" * (len(METHODS) + 5) + "|"
    for name, part in record["divisions"].items():
        for shift, row in part["counts"].items():
            errors = " | ".join(f"{row['errors'][method]:.1f}" for method in METHODS)
            yield f"| {name} | {shift} | {errors} | {row['held']:.0%} | {row['held_alone']:.0%} | {row['width']:.0f} |"
