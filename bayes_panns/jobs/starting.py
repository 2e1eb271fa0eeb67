"""What a posterior needs between its construction and the first step of its fit."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch

from bayes_panns.audio.augment import SpecAugment
from bayes_panns.bayes import MeanField, embeddings_under, fitted_head, mean_weights
from bayes_panns.core.choices import Features as FeaturesChoice
from bayes_panns.core.choices import HeadStart
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import HEAD
from bayes_panns.posterior import Inherited, Posterior
from bayes_panns.recipes import Run
from bayes_panns.svi import Embeddings, Features, FitSettings, require_fixed

logger = logging.getLogger(__name__)

BACKBONE = "backbone"
"""In a recipe's ``freeze``, all modules but the last layer."""

LOCS = "locs"
"""In a recipe's ``freeze``, every mean and every point weight: a fit of the posterior's widths alone."""

_PROBE_VIEWS = 3
"""Views of each clip under SpecAugment that a probe is fitted on, beside the clip itself."""

_PROBE_BIAS = 10.0
"""The prior's standard deviation of a probe's bias: wide."""


def freeze(posterior: Posterior, parts: Sequence[str]) -> None:
    """Freeze what a recipe's ``freeze`` names.

    Raises:
        RecipeError: The network has no such module, or the guide is the user's own.
    """
    if not parts:
        return
    modules = [name for name, _ in posterior.model.net.named_modules() if name]
    top = [name for name in modules if "." not in name]
    for part in parts:
        if part not in [BACKBONE, LOCS, *modules]:
            raise RecipeError(
                f"freeze: the network has no module {part!r}; there are {', '.join(top)}, the modules in them, "
                f"{BACKBONE} (all but {HEAD}) and {LOCS} (all but the posterior's widths)"
            )
    if not isinstance(posterior.guide, MeanField):
        raise RecipeError("freeze is not supported with a custom guide")
    backbone = [name for name in top if name != HEAD] if BACKBONE in parts else []
    frozen = [part for part in parts if part not in (BACKBONE, LOCS)] + backbone
    posterior.model.freeze(*frozen)
    posterior.guide.freeze(*frozen)
    if LOCS in parts:
        posterior.model.freeze_points()
        posterior.guide.freeze_locs()


def require_fit(posterior: Posterior, recipe: Run, inherited: Inherited | None) -> None:
    """Check that a fit as the recipe says can be made of a posterior.

    Args:
        posterior: The posterior before its first step, with its frozen parts.
        recipe: The run.
        inherited: What it took over from upstream.

    Raises:
        RecipeError: The recipe's values do not fit the posterior or each other.
    """
    rotated = _rotated(posterior)
    if recipe.head == HeadStart.PROBE and (inherited is None or not isinstance(posterior.guide, MeanField)):
        raise RecipeError('head = "probe" needs a posterior to start from (finetune --from) and a guide recipe')
    if rotated and recipe.fit.features != FeaturesChoice.EMBEDDINGS:
        raise RecipeError(
            'posterior "rotated" takes its axes from the embeddings of a frozen backbone: set '
            'fit.features = "embeddings", as the recipe rotated-head does'
        )
    fitted_first = inherited is not None and (rotated or recipe.head == HeadStart.PROBE)
    if LOCS in recipe.freeze and new_head(inherited) and not fitted_first:
        raise RecipeError(
            "freeze: with locs frozen, weights that no fit has changed would stay random: start from a posterior of "
            'the same labels (finetune --from), or set head = "probe"'
        )
    if recipe.fit.features == FeaturesChoice.EMBEDDINGS:
        require_fixed(posterior.model)


def new_head(inherited: Inherited | None) -> bool:
    """Whether the last layer starts afresh."""
    return inherited is None or f"{HEAD}.weight" in inherited.new


def prepare(
    posterior: Posterior, recipe: Run, data: Features | Embeddings, inherited: Inherited | None, device: torch.device
) -> None:
    """Put the last layer where its fit starts: align a rotated one to the embeddings, or fit a probe.

    Args:
        posterior: The posterior before its first step.
        recipe: The run.
        data: The clips to fit.
        inherited: What it took over from upstream.
        device: Where to compute.
    """
    new = new_head(inherited)
    if _rotated(posterior):
        assert isinstance(data, Embeddings)
        width = cast(MeanField, posterior.guide).align(data.views, data.target if new else None)
        start = "fitted to the clips" if new else "the upstream posterior's"
        logger.info(f"last layer rotated: its mean is {start}, its prior's standard deviation {width:.3g}")
    elif recipe.head == HeadStart.PROBE and new:
        _fit_probe(posterior, data, device, recipe.fit)
        logger.info("last layer: starts at the probe's, the most probable one on the upstream's embeddings")


def _rotated(posterior: Posterior) -> bool:
    return isinstance(posterior.guide, MeanField) and posterior.guide.axes is not None


def _fit_probe(posterior: Posterior, data: Features | Embeddings, device: torch.device, settings: FitSettings) -> None:
    """Fit the last layer alone, on embeddings under the means of the backbone's weights."""
    if isinstance(data, Embeddings):
        views = data.views
    else:
        posterior.model.to(device).eval()
        posterior.model.drop(False)
        weights = mean_weights(posterior.guide.to(device))
        masked = partial(SpecAugment(), generator=torch.Generator().manual_seed(settings.seed))
        augmentations = [None] + [masked] * (_PROBE_VIEWS if settings.spec_augment else 0)
        views = torch.cat(
            [
                torch.stack([embeddings_under(posterior.model, weights, clips, each) for each in augmentations], dim=1)
                for clips, _ in (data.batch(index, device) for index in torch.arange(len(data)).split(32))
            ]
        )
    target = data.target.to(views.device)
    weight, bias = fitted_head(
        views, target, len(posterior.labels), posterior.model.likelihood, bias_prior_scale=_PROBE_BIAS
    )
    posterior.start_head(weight, bias)
