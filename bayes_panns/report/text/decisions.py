"""The decisions of a posterior in words, for ``inspect``."""

from collections.abc import Mapping, Sequence
from typing import Any

from bayes_panns.core.choices import FittedTo, Target
from bayes_panns.posterior import Calibration, Decisions


def shown_calibration(table: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """A calibration's table of a header, with its decisions a line a label.

    Args:
        table: As :func:`~bayes_panns.posterior.read_header` gives it.
        labels: K label names.
    """
    calibration = Calibration.model_validate(table)
    plain = {key: value for key, value in table.items() if key not in ("decisions", "usual", "confusion")}
    if calibration.usual is not None:
        usual = calibration.usual
        plain["outside"] = (
            f"{usual.score} above {usual.limit:.4g}, as in {usual.level:.2g} of windows like its {usual.clips} clips"
        )
    if calibration.decisions is not None:
        plain["decisions"] = _decisions(calibration.decisions, labels)
    return plain


def _decisions(decisions: Decisions, labels: Sequence[str]) -> dict[str, Any]:
    per = "false alarms an hour" if decisions.target is Target.FALSE_ALARMS else str(decisions.target)
    lines = {
        "target": f"{per} {decisions.value:g}, with a confidence of {decisions.confidence:g}",
        "fitted to": f"{decisions.clips} clips of {decisions.recordings} recordings",
    }
    rows = zip(
        labels,
        decisions.threshold,
        decisions.fitted,
        decisions.called,
        decisions.wrong,
        decisions.bound,
        strict=True,
    )
    for label, threshold, fitted, called, wrong, bound in rows:
        if fitted is FittedTo.NEVER:
            lines[label] = "never decided"
            continue
        most = (
            f"at most {bound:.3g} an hour"
            if decisions.target is Target.FALSE_ALARMS
            else f"precision {1 - bound:.3f} or more"
        )
        whose = "" if fitted is FittedTo.OWN else ", with all labels that share the threshold"
        lines[label] = f"from {threshold:.4f}: {called} called, {wrong} wrong; {most}{whose}"
    return lines
