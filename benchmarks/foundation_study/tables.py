"""The tables of the study."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from benchmarks.foundation_study.design import DEFAULT, LOGISTIC
from benchmarks.transfer_study.measures import METRIC_NAMES
from benchmarks.transfer_study.tables import difference_of, line_of, number

_METRICS = ("accuracy", "nll", "ece", "aurc")


def tables(record: Mapping[str, Any]) -> str:
    """The numbers of :func:`~benchmarks.foundation_study.compare.compare` as Markdown tables."""
    clips, folds = record["clips"], record["folds"]
    kinds = [kind for kind in ("near", "speech") if kind in clips]
    outside = " and ".join(f"{clips[kind]} {'near sounds' if kind == 'near' else 'clips of speech'}" for kind in kinds)
    text = [record["note"], ""] if record["note"] else []
    text += [
        f"{clips['inside']} clips in the folds {', '.join(map(str, folds))}, each scored by fits to the other folds, "
        f"on embeddings of {record['embeddings']}. AUROC is against {outside}, by the entropy (H) of the mean of the "
        "draws and by their mutual information (MI), both before any power; it is the mean over the folds, whose "
        "scores have different scales. The number in brackets after an ECE is the expected ECE "
        "of a perfectly calibrated model with the same confidences and as many clips. A row of several "
        "seeds shows the mean over them; a seed decides which labels there are. Seconds are those of a fit and its "
        "choices, by the clock, on a core that was shared. Differences in NLL are paired over recordings, with 95 % "
        "bootstrap intervals; a star marks intervals without 0.",
        "",
        f"`{LOGISTIC}`: scikit-learn, C by cross-validation over the recordings of the training clips, with the inner "
        f"folds of `{DEFAULT}`. `{LOGISTIC}-power`: the same with a power that is fitted to these folds' predictions. "
        "For a single draw a power is the inverse of a temperature, so there is no row for that. "
        f"`{LOGISTIC}-ensemble`: five of them, each on a bootstrap sample of the recordings. `laplace-torch`: "
        "Kronecker factors at that regression, the prior's precision by the marginal likelihood, probit predictions.",
    ]
    names = [*_METRICS, *(f"{kind}_{score}" for kind in kinds for score in ("entropy", "mutual_information"))]
    for share, rows in groupby(record["rows"], key=lambda row: row["share"]):
        head = ["", "seeds", *(METRIC_NAMES[name] for name in names), "s a fold"]
        head += [f"NLL minus `{other}`" for other in (DEFAULT, LOGISTIC)]
        text += ["", f"### {share:.0%} of the labels", "", line_of(head)]
        text.append(line_of(["---", *["---:"] * (len(head) - 1)]))
        for row in rows:
            if not row["seeds"]:
                text.append(line_of([f"`{row['name']}`", "not installed", *[""] * (len(head) - 2)]))
                continue
            cells = [number(row["metrics"].get(name)) for name in names]
            cells[names.index("ece")] += f" ({row['ece_if_calibrated']:.3f})"
            cells += [f"{row['seconds_a_fold']:.1f}"]
            cells += [difference_of(row["nll_minus"].get(other)) for other in (DEFAULT, LOGISTIC)]
            text.append(line_of([f"`{row['name']}`", str(row["seeds"]), *cells]))
    return "\n".join(text) + "\n"
