"""The tables of the study."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from benchmarks.transfer_study.design import TEMPERED
from benchmarks.transfer_study.measures import METRIC_NAMES
from benchmarks.transfer_study.out_of_distribution import KINDS


def tables(record: Mapping[str, Any]) -> str:
    """The numbers of :func:`~benchmarks.transfer_study.compare.compare` as Markdown tables."""
    clips = record["clips"]
    text = [
        f"{clips['inside']} clips, each scored by fits to the other folds. The columns near and speech are AUROC "
        f"against {clips['near']} near sounds and {clips['speech']} clips of speech, by entropy (H) and by mutual "
        "information (MI). A row of several seeds shows the mean over the seeds. In a mixed row, the fits of all seeds "
        "make one prediction, the mean of theirs. The number in brackets after an ECE is the expected ECE of a "
        "perfectly calibrated model with the same confidences and as many clips. Differences in NLL are paired over "
        "recordings, with 95 % bootstrap intervals; a star marks intervals without 0.",
        "",
        "The trivial score, the loudest frame of the top eight mel bands: AUROC "
        + " and ".join(f"{_with_interval(record['trivial_auroc'][kind])} against {kind}" for kind in KINDS)
        + ".",
    ]
    for (arm, share), rows in groupby(record["rows"], key=lambda row: (row["arm"], row["share"])):
        where = "from the upstream posterior" if arm == "transfer" else "from scratch"
        text += ["", f"### {where.capitalize()}, {share:.0%} of the labels", ""]
        head = ["", "seeds", *METRIC_NAMES.values(), "NLL minus det", f"NLL minus {TEMPERED}"]
        text += [line_of(head), line_of(["---", *["---:"] * (len(head) - 1)])]
        for row in rows:
            cells = [number(row["metrics"].get(name)) for name in METRIC_NAMES]
            place = list(METRIC_NAMES).index("ece")
            cells[place] += f" ({row['ece_if_calibrated']['mean']:.3f})"
            differences = [difference_of(row["nll_minus"].get(name)) for name in ("det", TEMPERED)]
            text.append(
                line_of([f"`{row['name']}`", f"{row['seeds']}{' mixed' if row['mixed'] else ''}", *cells, *differences])
            )
    if record["claims"]:
        text += ["", "### From the upstream posterior minus from scratch", ""]
        text += [line_of(["", "labels", "accuracy", "NLL"]), line_of(["---", "---:", "---:", "---:"])]
        for claim in record["claims"]:
            both = [difference_of(claim["transfer_minus_scratch"][metric]) for metric in ("accuracy", "nll")]
            text.append(line_of([f"`{claim['name']}`", f"{claim['share']:.0%}", *both]))
    cpu = sum(stage["cpu_seconds"] for stage in record["times"])
    clock = sum(stage["fit_seconds_by_the_clock"] for stage in record["times"])
    text += [
        "",
        f"The fits and scores of this command took {cpu / 3600:.2f} CPU hours; all fits took {clock / 3600:.2f} hours "
        "of wall-clock time.",
    ]
    return "\n".join(text) + "\n"


def line_of(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def number(interval: Mapping[str, float] | None) -> str:
    """The value of a metric, or a dash where it is undefined."""
    return "-" if interval is None else f"{interval['value']:.3f}"


def _with_interval(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})"


def difference_of(interval: Mapping[str, float] | None) -> str:
    """A difference with its interval, and a star if that is without 0."""
    if interval is None:
        return ""
    apart = interval["low"] > 0 or interval["high"] < 0
    return f"{interval['value']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f}){' *' if apart else ''}"
