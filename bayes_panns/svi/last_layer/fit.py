"""The fit of a rotated last layer as a run makes it."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.bayes import BayesianNet, ComposedGuide, RotatedHead, effective_parameters
from bayes_panns.core import progress
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import FitError
from bayes_panns.metrics import apply_power
from bayes_panns.metrics.power import BOUNDS
from bayes_panns.ranks import group
from bayes_panns.svi.embeddings import Embeddings
from bayes_panns.svi.last_layer.axes import HeadAxes, realigned
from bayes_panns.svi.last_layer.choice import HeadChoice, choose_head
from bayes_panns.svi.last_layer.inference import HeadPosterior, HeadPrior, find_axes, infer_head
from bayes_panns.svi.metrics import METRICS, append_metrics, effective_shares, widths
from bayes_panns.svi.settings import FitSettings
from bayes_panns.svi.validation import held_out_scores

logger = logging.getLogger(__name__)

_UNCALIBRATED = "so nothing can be chosen or calibrated by cross-validation; add clips of other recordings"

_FEW, _FEW_CLIPS = (
    20,
    "few clips were scored by the inner folds, so prior, KL weight and power are little more than guesses",
)
"""Fewer scored clips than these are warned of."""

_NEAR = 1.05
"""A power within this factor of a bound is at the bound."""

_DRAWS = 200
"""Draws of the logits of each validation clip."""

_SHIFTS, _SHIFTED = 3, 500
"""Steps to the shift of the logits that takes the labels' shares out, and the most clips that it is seen on."""


@dataclass(frozen=True)
class Earlier:
    """A rotated last layer that earlier clips have left, as the prior of new ones.

    Attributes:
        head: Its factors and axes.
        prior_scale: The standard deviation of the weight's own prior.
        kl_weight: The weight of the KL that it was fitted at.
    """

    head: RotatedHead
    prior_scale: float
    kl_weight: float

    @torch.no_grad()
    def realigned(self, embeddings: Tensor) -> tuple[HeadAxes, HeadPrior]:
        """Its axes, as far as they are free turned to meet new embeddings ``(N, E)``; and its factors along them."""
        (weight, bias), axes = self.head.sites, self.head.axes
        loc, scale = self.head.loc(weight).detach(), self.head.scale(weight).detach()
        free = ((loc == 0) & torch.isclose(scale, torch.tensor(self.prior_scale).to(scale), rtol=1e-4)).all(dim=0)
        found = realigned(HeadAxes(axes.left, axes.right, axes.centre, 1.0), free, embeddings.to(loc))
        return found, HeadPrior(loc, scale, self.head.loc(bias).detach(), self.head.scale(bias).detach())


class HeadFit:
    """A fit of a rotated last layer to the embeddings of labelled clips, by natural gradients over all clips.

    First a cross-validation over the clips' recordings chooses the prior's width and the weight of the KL and fits the
    power of the averaged predictive, as ``settings.selection`` says; see :func:`choose_head`. Then the last layer is
    fitted to all clips; see :func:`infer_head`. It takes seconds, so there is no checkpoint: a run that was interrupted
    starts again. The optimum does not depend on the start. Of several processes all compute it, and the first writes.

    With ``before`` nothing is chosen: the posterior of earlier clips is the prior, and the fit goes on with the weight
    of the KL that it was fitted at.

    Args:
        model: The model; only its last layer has a guide.
        guide: Its guide, whose only sites are those of a :class:`~bayes_panns.bayes.RotatedHead`.
        data: The clips to fit.
        settings: How.
        folder: Where the metrics go.
        validation: Clips that are scored at the end, as predictions will be, and never trained on.
        before: The last layer that earlier clips have left.
        device: Where to compute.

    Attributes:
        choice: What the cross-validation chose; None before :meth:`run`, and without one.
    """

    def __init__(
        self,
        model: BayesianNet,
        guide: ComposedGuide,
        data: Embeddings,
        settings: FitSettings,
        folder: Path,
        *,
        validation: Embeddings | None = None,
        before: Earlier | None = None,
        device: torch.device | str = "cpu",
    ):
        self.model, self.guide = model.to(device), guide.to(device)
        self.data, self.validation = data, validation
        self.settings, self.folder = settings, folder
        self.device, self.before = torch.device(device), before
        self.metrics: dict[str, float] = {}
        self.choice: HeadChoice | None = None
        self.step = 0

    @property
    def epoch(self) -> float:
        """How many passes over the clips were made: one a step."""
        return float(self.step)

    @property
    def converged(self) -> bool:
        """Whether the fit ended before the most steps that the settings allow."""
        return 0 < self.step < self.settings.epochs

    @property
    def kl_weight(self) -> float:
        """The weight of the KL of the fit."""
        if self.before is not None:
            return self.before.kl_weight
        return self.settings.kl_weight if self.choice is None else self.choice.chosen.kl_weight

    def run(self) -> bool:
        """Choose and fit.

        Returns:
            True.

        Raises:
            FitError: A parameter is not finite.
        """
        settings, selection = self.settings, self.settings.selection
        torch.manual_seed(settings.seed)
        if group().first:
            (self.folder / METRICS).write_text("")
        started = time.monotonic()
        self.model.eval()
        weight, bias = self.model.head_sites
        views, target = self.data.views.to(self.device), self.data.target.to(self.device)
        labels, likelihood = len(self.data.clips.labels), self.model.likelihood
        tau_bias = self.model.prior(bias).variance.mean().sqrt().item()
        learned, prior, start = weight in self.model.learned, None, None
        if self.before is not None:
            axes, prior = self.before.realigned(views.flatten(0, 1))
            scales = [self.before.prior_scale]
        else:
            axes, *start = find_axes(views, target, labels, likelihood)
            scales = [self.model.prior(weight).variance.mean().sqrt().item() * axes.spread]
            if learned:
                scales = list(selection.prior_scales)
            if selection.folds:
                self.choice = self._choose(views, target, labels, scales, tau_bias)
        if self.choice is not None:
            scales = [self.choice.chosen.prior_scale]
        with progress.task("fitting", total=settings.epochs, unit="step") as bar:

            def on_step(step: int, nll: Tensor, kl: Tensor, size: Tensor) -> bool:
                bar.advance()
                bar.show(f"nll {nll.min().item() / len(self.data):.3f}, kl {kl.min().item():.4g}")
                return True

            found = infer_head(
                views,
                target,
                likelihood,
                axes,
                scales,
                [self.kl_weight] * len(scales),
                bias_prior_scale=tau_bias,
                prior=prior,
                start=None if start is None else (start[0], start[1]),
                steps=settings.epochs,
                seed=settings.seed,
                on_step=on_step,
            )
        if selection.balanced and likelihood.task is Task.ONE_OF_K:
            found = self._balanced(found, target, labels)
        # Without a cross-validation the width of the prior is the one of the greatest ELBO.
        best = int((found.nll + found.kl_weight * found.kl).argmin())
        self.step = found.steps
        self._place(axes, found, best, learned)
        self._report(found, best, time.monotonic() - started)
        return True

    def _choose(
        self, views: Tensor, target: Tensor, labels: int, scales: list[float], tau_bias: float
    ) -> HeadChoice | None:
        settings, selection = self.settings, self.settings.selection
        recordings = self._recordings()
        folds = self.data.clips.recording_folds(selection.folds, settings.seed, recordings)
        count, known = int(folds.max()) + 1, int(recordings.max()) + 1
        if count < 2:
            logger.warning(f"all clips are of one recording, {_UNCALIBRATED}")
            return None
        started = time.monotonic()
        with progress.task("choosing", total=count, unit="fold") as bar:
            try:
                choice = choose_head(
                    views,
                    target,
                    labels,
                    self.model.likelihood,
                    folds,
                    recordings,
                    prior_scales=scales,
                    kl_weights=[settings.kl_weight * factor for factor in selection.kl_weights],
                    smoothing=selection.smoothing,
                    bias_prior_scale=tau_bias,
                    steps=settings.epochs,
                    seed=settings.seed,
                    on_fold=bar.advance,
                )
            except ValueError as error:
                raise FitError(f"fit.selection: {error}; check its prior_scales and kl_weights") from error
        if choice is None:
            logger.warning(f"no label has clips of two recordings, {_UNCALIBRATED}")
            return None
        chosen, power = choice.chosen, choice.power
        if power == (1.0,):
            shown = "no power, since none helps"
        elif len(power) == 1:
            shown = f"power {power[0]:.3g}"
        else:
            shown = f"a power for each label from {min(power):.3g} to {max(power):.3g}"
        logger.info(
            f"chosen by {count} inner folds over {known} recordings, {choice.clips} of {len(self.data)} clips scored: "
            f"prior scale {chosen.prior_scale:g}, kl_weight {chosen.kl_weight:g}, {shown}; NLL {choice.nll:.4f}, with "
            f"the power {choice.powered_nll:.4f} ({time.monotonic() - started:.1f} s)"
        )
        least, most = BOUNDS
        if choice.clips < _FEW:
            logger.warning(f"{_FEW_CLIPS}: {choice.clips}; label more before you trust its probabilities")
        elif min(power) < least * _NEAR or max(power) > most / _NEAR:
            logger.warning("the power is at a bound of its range, so little determines it; check the clips' labels")
        return choice

    def _balanced(self, found: HeadPosterior, target: Tensor, labels: int) -> HeadPosterior:
        """The posterior for equally frequent labels, after the power: their shares taken out of the logits."""
        count = torch.bincount(target.flatten(), minlength=labels).to(found.bias_loc).clamp(min=0.5)
        exponent = 1.0 if self.choice is None else self.choice.power[0]
        wanted = -(count.log() - count.log().mean())
        if not wanted.any():
            return found
        some = self.data.views[:: -(-len(self.data) // _SHIFTED), 0].to(self.device)

        def log_odds(posterior: HeadPosterior) -> Tensor:
            p = posterior.probability(some, self.model.likelihood, _DRAWS).clamp(min=1e-30).log() * exponent
            return p - p.mean(dim=-1, keepdim=True)

        before, factor, shifted = log_odds(found), 1 / exponent, found
        # The mean over draws moves less than the logits of each.
        for _ in range(_SHIFTS):
            shifted = replace(found, bias_loc=found.bias_loc + factor * wanted @ found.axes.left.to(wanted))
            moved = (log_odds(shifted) - before).median(dim=1).values
            factor *= (wanted.square().sum() / (moved @ wanted).max().clamp(min=1e-6)).clamp(0.5, 2).item()
        return replace(found, bias_loc=found.bias_loc + factor * wanted @ found.axes.left.to(wanted))

    def _recordings(self) -> NDArray[np.integer]:
        """Which recording each clip is of. Where none is known, clips that are the same are of one."""
        clips = self.data.clips
        if clips.sources is not None:
            return clips.recordings
        _, first, same = np.unique(self.data.views[:, 0].numpy(), axis=0, return_index=True, return_inverse=True)
        # In order of appearance, so that rounding does not change the folds.
        return np.argsort(np.argsort(first))[same.reshape(-1)]

    @torch.no_grad()
    def _place(self, axes: HeadAxes, found: HeadPosterior, index: int, learned: bool) -> None:
        """Set the guide, and the width of a learned prior."""
        if learned:
            scale = found.prior_scale[index].item() / axes.spread
            self.model.set_prior_scale(self.model.head_sites[0], scale)
        head = self.guide.part_of(self.model.head_sites[0])
        assert isinstance(head, RotatedHead), "natural gradients are for a rotated last layer"
        size, rank = axes.right.shape
        loc, scale_of = found.loc[index], found.scale[index]
        # Outside the span of the clips the posterior is the prior.
        outside = (len(loc), size - rank)
        head.set_factors(
            left=axes.left,
            right=axes.complete,
            centre=axes.centre,
            loc=torch.cat([loc, loc.new_zeros(outside)], dim=1) / axes.spread,
            scale=torch.cat([scale_of, found.prior_scale[index].expand(outside)], dim=1) / axes.spread,
            bias_loc=found.bias_loc[index],
            bias_scale=found.bias_scale[index],
        )
        if not all(torch.isfinite(parameter).all() for parameter in head.parameters()):
            raise FitError("the last layer holds values that are not finite; check fit.selection.prior_scales")

    def _report(self, found: HeadPosterior, index: int, seconds: float) -> None:
        scores = {} if self.validation is None else self._scores(self.validation, found, index)
        self.metrics = {
            "epoch": self.epoch,
            "step": self.step,
            "nll": found.nll[index].item() / len(self.data),
            "kl": found.kl[index].item(),
            "kl_weight": self.kl_weight,
            "seconds": round(seconds, 3),
            **scores,
        }
        shares = effective_shares(effective_parameters(self.model, self.guide))
        if group().first:
            append_metrics(self.folder / METRICS, self.metrics | widths(self.model, self.guide) | shares)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in self.metrics.items() if name.startswith("val/"))
        if not self.converged:
            logger.warning(f"the fit has not converged in fit.epochs = {self.settings.epochs} steps; raise it")
        logger.info(
            f"fitted in {self.step} steps: nll {self.metrics['nll']:.3f}, kl {self.metrics['kl']:.4g}"
            + (f", {shown}" if shown else "")
        )

    def _scores(self, held: Embeddings, found: HeadPosterior, index: int) -> dict[str, float]:
        """Scores of held-out clips by the mean of draws, at the power, as predictions will be."""
        likelihood = self.model.likelihood
        views = held.views[:, 0].to(self.device)
        p = found.probability(views, likelihood, _DRAWS)[index].cpu().double().numpy()
        if self.choice is not None and self.choice.power != (1.0,):
            p = apply_power(p, np.array(self.choice.power), likelihood.task)
        return held_out_scores(p, held.target.numpy(), likelihood.task)
