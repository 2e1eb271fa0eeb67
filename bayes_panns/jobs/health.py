"""What ``doctor`` looks at in a posterior: its files, its fit, its calibration and what it predicts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from bayes_panns.core.choices import Health, Holds
from bayes_panns.core.errors import BayesPannsError, reason
from bayes_panns.core.findings import Finding
from bayes_panns.jobs.doctor import speed
from bayes_panns.jobs.inputs import posterior_at
from bayes_panns.jobs.provenance import determined
from bayes_panns.jobs.verify import verify
from bayes_panns.posterior import FittedClips, Posterior, choose_device, load
from bayes_panns.posterior.header import FORMAT, Header, read
from bayes_panns.posterior.inputs import described
from bayes_panns.predictions.clip_sets import predict_waveforms

AREA = "posterior"

_MOSTLY = 0.9
"""The share of weights at the prior's width from which on it is worth a note."""

_MISCALIBRATED = 0.1
"""A held-out ECE from which on it is worth a note."""

_DRAWS, _CLIPS = 6, 3


def examine_posterior(
    path: str | Path, *, device: str = "auto", guide_function: str | None = None
) -> Iterator[Finding]:
    """Look at a posterior: whether its files are whole, what its fit says of itself, and whether it predicts.

    Args:
        path: Its folder, or a run's.
        device: Where to compute; see :func:`~bayes_panns.posterior.choose_device`.
        guide_function: ``module:function`` of its guide, for a posterior that was fitted with one.
    """
    try:
        checked = verify(path)
        header = read(posterior_at(path))
    except (BayesPannsError, OSError) as error:
        todo = "name the folder of a posterior or of a run that has one"
        yield Finding(AREA, "files", Health.PROBLEM, reason(error), todo)
        return
    if not checked.whole:
        damaged = "; ".join(line for line in checked.lines if ": damaged: " in line)
        yield Finding(AREA, "files", Health.PROBLEM, damaged, "copy it again from where it is whole, or fit it again")
        return
    yield _files(checked.lines, header)
    yield from _of_header(header)
    try:
        posterior = load(path, device=choose_device(device), guide_function=guide_function)
    except BayesPannsError as error:
        yield Finding(AREA, "loading", Health.PROBLEM, reason(error), "do what the message says, or fit it again")
        return
    yield _of_calibration(posterior)
    if posterior.fitted_clips == FittedClips():
        text = "are not recorded, so an evaluation on them would go unnoticed"
        yield Finding(
            AREA, "fitted clips", Health.NOTE, text, "score it only on clips that you know it was not fitted to"
        )
    predicts = _predicts(posterior)
    yield predicts
    if predicts.health != Health.PROBLEM and posterior.takes == Holds.WAVEFORMS:
        draws = posterior.draws_for(None)
        assert draws != "moments", "the default is a number"
        yield speed(posterior, draws, AREA)


def _files(lines: tuple[str, ...], header: Header) -> Finding:
    """What the check against the digests has found, where nothing is damaged."""
    text = f"{'; '.join(lines)}; format {header.format_version}, weights {header.sha256[:12]}"
    if any("digest" in line for line in lines):
        todo = f"format {FORMAT} has digests of all: calibrate writes it"
        return Finding(AREA, "files", Health.NOTE, text, todo)
    return Finding(AREA, "files", Health.OK, text)


def _of_header(header: Header) -> Iterator[Finding]:
    """What the posterior says of itself."""
    labels = list(header.labels)
    twice = sorted({label for label in labels if labels.count(label) > 1}) if len(labels) < 10_000 else []
    shown = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
    yield Finding(
        AREA,
        "labels",
        Health.NOTE if twice else Health.OK,
        f"{len(labels)} ({header.task}): {shown}" + (f"; twice: {', '.join(twice[:5])}" if twice else ""),
        "give each label a name of its own and pack again" if twice else "",
    )
    if header.sample_rate:
        text = f"{header.net}, {header.sample_rate} Hz, clips of {header.clip_seconds:g} s; shorter ones: "
        text += header.shown_short_clips.summary
        deaf = header.sample_rate < 16000
        todo = "for higher sounds fit a network at 32000 Hz" if deaf else ""
        text += f"; hears nothing above {header.sample_rate // 2} Hz" if deaf else ""
        yield Finding(AREA, "network", Health.NOTE if deaf else Health.OK, text, todo)
    yield _fit(header)
    effective = determined(header.provenance)
    if effective is not None:
        much = effective.at_prior_share > _MOSTLY
        todo = "more clips or fewer Bayesian weights help; see docs/widths.md" if much else ""
        yield Finding(AREA, "widths", Health.NOTE if much else Health.OK, str(effective), todo)
    held_out = {name: value for name, value in header.metrics.items() if name.startswith("val/")}
    if held_out:
        shown = ", ".join(f"{name.removeprefix('val/')} {value:.3g}" for name, value in held_out.items())
        off = held_out.get("val/ece", 0.0) > _MISCALIBRATED
        todo = "calibrate it: bayes-panns calibrate POSTERIOR" if off else ""
        yield Finding(AREA, "held-out clips", Health.NOTE if off else Health.OK, shown, todo)
    elif "epochs" in header.provenance:
        todo = "score it: bayes-panns evaluate POSTERIOR --data STORE, with clips that it was not fitted to"
        yield Finding(AREA, "held-out clips", Health.OK, "none were scored in the fit", todo)


def _fit(header: Header) -> Finding:
    """What became of the fit."""
    found = header.provenance
    if "epochs" not in found:
        origin = found.get("checkpoint") or ", ".join(found.get("widths", {}).get("data", ())) or "elsewhere"
        if "widths" in found:
            return Finding(AREA, "fit", Health.OK, f"none: widths from the Fisher information of clips ({origin})")
        todo = "fit its last layer to your clips: bayes-panns finetune rotated-head --from POSTERIOR --data STORE"
        return Finding(AREA, "fit", Health.NOTE, f"none: imported from {origin}", todo)
    said = [
        f"{found['epochs']:g} epochs on {found.get('clips', 'unknown')} clips of {', '.join(found.get('data', ()))}"
    ]
    todos = []
    if not found.get("complete", True):
        said.append("interrupted")
        todos.append("continue it with --resume")
    if not found.get("converged", True):
        said.append("not converged")
        todos.append("continue it with --resume and more of fit.epochs")
    if found.get("tempered"):
        said.append(
            f"tempered: the KL weighs {found.get('kl_weight', 1):g}, so widths are narrower than the posterior's"
        )
    return Finding(AREA, "fit", Health.NOTE if len(said) > 1 else Health.OK, ", ".join(said), "; ".join(todos))


def calibrations(posterior: Posterior) -> list[str]:
    """Which calibrations a posterior has, in words; empty if it has none."""
    have = []
    if posterior.power is not None:
        have.append(f"the power of its training clips ({posterior.power.folds} inner folds)")
    found = posterior.calibration
    if found is not None:
        sets = f"label sets of {found.coverage:.0%}"
        have.append(f"temperature {found.temperature:.3g} and {sets}, for {found.draws} draws")
        if found.usual is not None:
            have.append(f"a limit of {found.usual.score} beyond which a window is out of distribution")
        if found.decisions is not None:
            have.append(f"decisions for {found.decisions.target} {found.decisions.value:g}")
    return have


def _of_calibration(posterior: Posterior) -> Finding:
    have = calibrations(posterior)
    if not have:
        todo = "bayes-panns calibrate POSTERIOR --data STORE, with clips that it was not fitted to"
        return Finding(AREA, "calibration", Health.NOTE, "none: its probabilities are as the fit left them", todo)
    if posterior.calibration is None:
        todo = "for label sets: bayes-panns calibrate POSTERIOR --data STORE"
    elif posterior.calibration.decisions is None:
        todo = "for decisions: bayes-panns calibrate POSTERIOR --data STORE --precision 0.95"
    else:
        todo = ""
    return Finding(AREA, "calibration", Health.OK, "; ".join(have), todo)


def _predicts(posterior: Posterior) -> Finding:
    """Whether a few draws of noise give probabilities, and whether the draws differ."""
    generator = torch.Generator().manual_seed(0)
    clips = 0.1 * torch.randn(_CLIPS, posterior.width, generator=generator)
    refit = "its weights are of no use: fit it again, with a smaller learning rate if that was the cause"
    try:
        found = predict_waveforms(posterior, clips, _DRAWS, samples=True)
    except (BayesPannsError, RuntimeError) as error:
        return Finding(AREA, "predictions", Health.PROBLEM, f"cannot predict ({reason(error)})", refit)
    samples = found.samples
    assert samples is not None, "they were asked for"
    if not np.isfinite(samples).all() or samples.min() < 0 or samples.max() > 1:
        return Finding(AREA, "predictions", Health.PROBLEM, "probabilities of noise are not finite numbers", refit)
    spread = float(samples.std(axis=1).max())
    if not posterior.stochastic:
        text = "finite; the weights are points, so there is no epistemic uncertainty"
        todo = "fit a Bayesian last layer (finetune), or name several posteriors for an ensemble (predict --with)"
        return Finding(AREA, "predictions", Health.NOTE, text, todo)
    if spread == 0:
        text = f"{_DRAWS} draws agree to the last digit, though the weights have widths"
        return Finding(AREA, "predictions", Health.PROBLEM, text, "its widths are of no use: fit it again")
    constant = float(np.ptp(found.probability, axis=0).max()) == 0
    text = f"finite, and draws differ (by up to {spread:.2g} for noise, as a standard deviation)"
    if constant:
        return Finding(AREA, "predictions", Health.NOTE, f"{text}; all sounds get the same", refit)
    return Finding(AREA, "predictions", Health.OK, f"{text}; {_takes(posterior)}")


def _takes(posterior: Posterior) -> str:
    return f"{posterior.draws_for(None)} draws by default, of {described(posterior)}"
