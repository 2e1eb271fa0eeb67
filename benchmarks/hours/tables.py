"""The study's results as Markdown."""

from typing import Any

from benchmarks.hours.heads import HEADS
from benchmarks.hours.study import SCORES
from benchmarks.hours.tuning import WAYS


def tables(record: dict[str, Any]) -> str:
    """The tables of a study's record."""
    return "\n\n".join([_head(record), _heads(record), _scores(record), _calibration(record), _counts(record)]) + "\n"


def _head(record: dict[str, Any]) -> str:
    material = record["material"]
    return (
        "# Events in made hours\n\n"
        f"{material['test']} hours to test on and {material['development']} to choose rules by, of clips of ESC-10 and "
        "UrbanSound8K over background of the same sets. The clips of the fit, of the development hours and of the test "
        f"hours share no recording. {record['events']['test']:.0f} events a test hour on average "
        f"({record['events']['least']} to {record['events']['most']}), of {len(record['labels'])} labels: "
        f"{', '.join(record['labels'])}; {record['snr'][0]:g} to {record['snr'][1]:g} dB above the background. Windows "
        f"of {record['window']:g} s each {record['hop']:g} s. Intervals are 95 % bootstrap intervals over test hours. "
        f"{record['note']}".rstrip()
    )


def _heads(record: dict[str, Any]) -> str:
    rows = [
        [f"`{head}`", HEADS[head], *(f"{found[way]:.3f}" for way in WAYS)] for head, found in record["heads"].items()
    ]
    return (
        f"## Which head\n\nF1 of events on {record['heads_on']} development hours, each with its own best rules:\n\n"
        + _table(["head", "what it is", *WAYS], rows)
        + f"\n\n`{record['head']}` is tested."
    )


def _scores(record: dict[str, Any]) -> str:
    rows = [[row, *(_interval(found[name]) for name in SCORES)] for row, found in record["scores"].items()]
    meant = "\n".join(f"- **{way}**: {text}" for way, text in WAYS.items())
    rules = "; ".join(
        f"{way}: gap {each['gap']:g} s, least {each['least']:g} s, F1 {each['f1']:.3f} on the development hours"
        for way, each in record["rules"].items()
    )
    return (
        f"## Events found\n\n{meant}\n\nAll choose thresholds or levels a label, gap and least length on the "
        f"development hours ({rules}). An event's onset may be {record['collar']:g} s off, its offset that or half its "
        "length; segments are of 1 s; PSDS has the paper's parameters (0.5, 0.5, 0.3, alpha_ct 0, alpha_st 1, 100 an "
        "hour).\n\n" + _table(["", *SCORES], rows)
    )


def _calibration(record: dict[str, Any]) -> str:
    found = record["calibration"]
    rows = [[name, _interval(each)] for name, each in found["bounds"].items()]
    bins = [[f"{said:.2f}", f"{there:.2f}", str(count)] for said, there, count in found["reliability"]]
    return (
        f"## Is an event there?\n\n{found['candidates']} candidates in the test hours, before any level; "
        f"{found['there']:.3f} of them overlap an event of their label.\n\n"
        + _table(["", "value"], rows)
        + "\n\nFifths of the candidates by their probability from the draws:\n\n"
        + _table(["said", "are there", "candidates"], bins)
    )


def _counts(record: dict[str, Any]) -> str:
    counts = record["counts"]
    names = ("one recall", "recordings differ")
    rows = [
        [
            name,
            f"{counts[name]['held']:.3f}",
            f"{counts[name]['hours held']} of {len(counts[name]['hours'])}" if "hours" in counts[name] else "-",
            f"{counts[name]['width']:.1f}",
            f"{counts[name]['error']:.2f}",
        ]
        for name in names
    ]
    labels = [
        [
            label,
            f"{counts['recall'][k]:.2f}",
            f"{counts['alarms an hour'][k]:.2f}",
            *(f"{counts[name]['of a label'][label]:.2f}" for name in names),
        ]
        for k, label in enumerate(record["labels"])
    ]
    hours = [
        [str(index), str(truth), str(called), f"{low:.0f} to {high:.0f}", "yes" if low <= truth <= high else "**no**"]
        for index, (low, high, truth, called) in enumerate(counts["recordings differ"]["hours"])
    ]
    return (
        "## How many events\n\nIntervals of 90 % for the number of events of each label in each test hour, from recall "
        "and false events of the development hours. *One recall* is `metrics.count_events`; *recordings differ* is "
        "`metrics.Finding`, which draws each hour's recall and rate of false events from how they varied between "
        f"development hours (concentration {counts['concentration']:.3g}, shape {counts['shape']:.3g}). Without any "
        f"correction the mean error is {counts['one recall']['error of what was called']:.2f} events.\n\n"
        + _table(["", "hold the truth", "of all labels together", "mean width", "mean error of the median"], rows)
        + "\n\nBy label, with recall and false events an hour in the development hours:\n\n"
        + _table(["label", "recall", "false an hour", *names], labels)
        + "\n\nAll labels together, each test hour:\n\n"
        + _table(["hour", "events", "found", "interval", "holds"], hours)
    )


def _interval(value: list[float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
