"""The fit of a rotated last layer as a run makes it."""

import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from bayes_panns.bayes import BayesianNet, ComposedGuide, RotatedHead
from bayes_panns.core import progress
from bayes_panns.core.errors import FitError
from bayes_panns.svi.embeddings import Embeddings
from bayes_panns.svi.last_layer.axes import HeadAxes
from bayes_panns.svi.last_layer.choice import HeadChoice, choose_head
from bayes_panns.svi.last_layer.inference import HeadPosterior, find_axes, infer_head
from bayes_panns.svi.metrics import METRICS, append_metrics, widths
from bayes_panns.svi.settings import FitSettings
from bayes_panns.svi.validation import validate

logger = logging.getLogger(__name__)


class HeadFit:
    """A fit of a rotated last layer to the embeddings of labelled clips, by natural gradients over all clips.

    First a cross-validation over the clips' recordings chooses the prior's width and the weight of the KL and fits the
    power of the averaged predictive, as ``settings.selection`` says; see :func:`choose_head`. Then the last layer is
    fitted to all clips; see :func:`infer_head`. It takes seconds, so there is no checkpoint: a run that was interrupted
    starts again. The optimum does not depend on the start.

    Args:
        model: The model; only its last layer has a guide.
        guide: Its guide, whose only sites are those of a :class:`~bayes_panns.bayes.RotatedHead`.
        data: The clips to fit.
        settings: How.
        folder: Where the metrics go.
        validation: Clips that are scored at the posterior mean at the end, and never trained on.
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
        device: torch.device | str = "cpu",
    ):
        self.model, self.guide = model.to(device), guide.to(device)
        self.data, self.validation = data, validation
        self.settings, self.folder = settings, folder
        self.device = torch.device(device)
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
        (self.folder / METRICS).write_text("")
        started = time.monotonic()
        self.model.eval()
        weight, bias = self.model.head_sites
        views, target = self.data.views.to(self.device), self.data.target.to(self.device)
        labels, likelihood = len(self.data.clips.labels), self.model.likelihood
        tau_bias = self.model.prior(bias).variance.mean().sqrt().item()
        axes, *start = find_axes(views, target, labels, likelihood)
        scales = [self.model.prior(weight).variance.mean().sqrt().item() * axes.spread]
        learned = weight in self.model.learned
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
                start=(start[0], start[1]),
                steps=settings.epochs,
                seed=settings.seed,
                on_step=on_step,
            )
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
        folds = self.data.clips.recording_folds(selection.folds, settings.seed)
        count = int(folds.max()) + 1
        if count < 2:
            logger.warning(
                "all clips are of one recording, so nothing can be chosen or calibrated by cross-validation; label "
                "clips of other recordings"
            )
            return None
        started = time.monotonic()
        with progress.task("choosing", total=count, unit="fold") as bar:
            choice = choose_head(
                views,
                target,
                labels,
                self.model.likelihood,
                folds,
                self.data.clips.recordings,
                prior_scales=scales,
                kl_weights=[settings.kl_weight * factor for factor in selection.kl_weights],
                smoothing=selection.smoothing,
                bias_prior_scale=tau_bias,
                steps=settings.epochs,
                seed=settings.seed,
                on_fold=bar.advance,
            )
        chosen, power = choice.chosen, choice.power
        if power == (1.0,):
            shown = "no power, since none helps"
        elif len(power) == 1:
            shown = f"power {power[0]:.3g}"
        else:
            shown = f"a power for each label from {min(power):.3g} to {max(power):.3g}"
        recordings = int(self.data.clips.recordings.max()) + 1
        logger.info(
            f"chosen by {count} inner folds over {recordings} recordings: prior scale {chosen.prior_scale:g}, "
            f"kl_weight {chosen.kl_weight:g}, {shown}; NLL {choice.nll:.4f}, with the power {choice.powered_nll:.4f} "
            f"({time.monotonic() - started:.1f} s)"
        )
        return choice

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
        for name, parameter in head.named_parameters():
            if not torch.isfinite(parameter).all():
                raise FitError(f"{name} holds values that are not finite; check the embeddings and the prior's width")

    def _report(self, found: HeadPosterior, index: int, seconds: float) -> None:
        scores = {}
        if self.validation is not None:
            scores = validate(
                self.model, self.guide, self.validation, batch_size=self.settings.batch_size, device=self.device
            )
        self.metrics = {
            "epoch": self.epoch,
            "step": self.step,
            "nll": found.nll[index].item() / len(self.data),
            "kl": found.kl[index].item(),
            "kl_weight": self.kl_weight,
            "seconds": round(seconds, 3),
            **scores,
        }
        append_metrics(self.folder / METRICS, self.metrics | widths(self.model, self.guide))
        shown = ", ".join(f"{name} {value:.3f}" for name, value in self.metrics.items() if name.startswith("val/"))
        logger.info(
            f"fitted in {self.step} steps: nll {self.metrics['nll']:.3f}, kl {self.metrics['kl']:.4g}"
            + (f", {shown}" if shown else "")
        )
