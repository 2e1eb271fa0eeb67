"""Widths for a posterior of points, from the Fisher information of clips."""

import logging
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from bayes_panns import __version__
from bayes_panns.bayes import MeanField
from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import Holds, PriorKind, ScaleRule
from bayes_panns.core.errors import RecipeError, SettingError
from bayes_panns.devices import forked
from bayes_panns.nets import Network
from bayes_panns.posterior import Posterior, choose_device, require_inputs
from bayes_panns.recipes import read_strategy
from bayes_panns.svi import BATCH, require_fisher, start_from_fisher

logger = logging.getLogger(__name__)

_MEMORY, _KEPT = 1 << 31, 8
"""The bytes that a pass may keep for its gradients, and how many times those of a pass without gradients they are."""

_SAME, _MUCH = 0.9, 0.5
"""The part of a prior's width from which a width is nearly the same, and the share of such weights to warn of."""


def with_fisher_widths(
    posterior: Posterior,
    stores: str | Path | Sequence[str | Path],
    *,
    guide: str = "flip",
    clips: int | None = None,
    kl_weight: float = 1.0,
    seed: int = 0,
    device: str = "auto",
) -> Posterior:
    """A posterior with the means of another, and widths from the Fisher information of clips.

    A Laplace approximation with a diagonal, without a fit: 1 / s^2 = 1 / s0^2 + (clips / kl_weight) h, as
    :func:`~bayes_panns.svi.start_from_fisher` says. It is right if the means are a most probable set of weights under
    the prior and ``clips`` clips like those of the stores. Labels are not needed: the model's own take their place.

    The clips are shown as the posterior shows clips that it predicts. Its calibration and its power are dropped.

    Args:
        posterior: What has the means; weights with a width get another.
        stores: Clip stores, or one; of more than :data:`~bayes_panns.svi.fisher.CLIPS` clips, so many of them.
        guide: The guide recipe that says which weights have a width, and their priors: a file, or its name.
        clips: How many clips the posterior is to be of: by default those of the stores.
        kl_weight: The weight of the KL: 1 is the posterior, below it a tempered one.
        seed: Seeds the random signs.
        device: See :func:`~bayes_panns.jobs.choose_device`.

    Returns:
        The new posterior. ``provenance["widths"]`` says where they are from, ``provenance["upstream"]`` where the means
        are. A warning is logged if most weights keep the width of their prior, and not only the last layer is drawn.

    Raises:
        SettingError: ``clips`` or ``kl_weight`` is out of its range.
        StoreError: The stores do not hold what the posterior takes.
        RecipeError: The guide recipe has no weights with a width that this can set, or does not fit the network.
        PosteriorError: The posterior has a custom guide.
    """
    if not (clips is None or clips >= 1) or not 0 < kl_weight < math.inf:
        raise SettingError(f"clips = {clips}, kl_weight = {kl_weight}: both must be above 0")
    chosen, found = choose_device(device), ClipSet(stores)
    require_inputs(posterior, found)
    fresh = _built(posterior, guide)
    count = len(found) if clips is None else clips
    inputs = _Clips(fresh, found)
    fresh.model.to(chosen)
    fresh.guide.to(chosen)
    with forked(chosen):
        torch.manual_seed(seed)
        start_from_fisher(
            fresh.model,
            fresh.guide,
            inputs,
            clips=count,
            kl_weight=kl_weight,
            batch_size=inputs.batch_size,
            device=chosen,
        )
    fresh.model.eval()
    share = _share_at_prior(fresh)
    logger.info(f"{share:.1%} of the weights keep at least {_SAME:g} of their prior's width")
    if share > _MUCH and not fresh.model.only_head:
        logger.warning(
            "the clips say little of most weights, and draws of so many wide weights may predict nothing: compare with "
            "--draws 0; more --clips, a smaller --kl-weight and a guide of the last layer, such as det-flip, help"
        )
    fresh.provenance = {
        "widths": {
            "rule": str(ScaleRule.FISHER),
            "data": [store.path.name for store in found.stores],
            "clips": count,
            "kl_weight": kl_weight,
            "tempered": kl_weight != 1,
            "seed": seed,
            "share_at_prior": share,
        },
        "versions": {"bayes_panns": __version__, "torch": version("torch")},
        "upstream": {"folder": _name(posterior), **posterior.provenance},
    }
    return fresh


def _built(posterior: Posterior, guide: str) -> Posterior:
    """The posterior before its widths are set.

    Raises:
        RecipeError, PosteriorError: As :func:`with_fisher_widths`.
    """
    strategy = read_strategy(guide)
    priors = {strategy.default.prior, *(rule.prior for rule in strategy.rule)}
    if PriorKind.UPSTREAM in priors and not posterior.gaussians():
        raise RecipeError(f'guide {guide}: prior "upstream" needs a posterior to start from that has widths')
    fresh = Posterior.build(
        net=posterior.net,
        labels=posterior.labels,
        task=posterior.task,
        sample_rate=posterior.sample_rate,
        clip_seconds=posterior.clip_seconds,
        strategy=strategy,
        upstream=posterior,
    )
    fresh.start_from(posterior)
    fresh.short_clips, fresh.embeddings_of = posterior.short_clips, posterior.embeddings_of
    # The means were fitted to these.
    fresh.fitted_clips = posterior.fitted_clips
    others = [part for part in fresh.guide.parts if part.stochastic and not isinstance(part, MeanField)]
    try:
        require_fisher(fresh.model, fresh.guide)
    except ValueError as error:
        raise RecipeError(f"guide {guide}: {error}") from error
    if others:
        name = others[0].sites[0].removeprefix("net.")
        raise RecipeError(f"guide {guide}: {name} has a width that only a fit can set; take another guide")
    return fresh


@torch.no_grad()
def _share_at_prior(posterior: Posterior) -> float:
    """The share of the weights with a width whose width is nearly that of their prior."""
    kept = count = 0
    for site, (_, scale) in posterior.guide.gaussians().items():
        kept += int((scale > _SAME * posterior.model.prior(site).stddev).sum())
        count += scale.numel()
    return kept / count


class _Clips:
    """Clips as a posterior is shown them, whatever their labels.

    Args:
        posterior: The posterior.
        clips: Clips of what it takes.

    Attributes:
        batch_size: How many fit into memory with what their gradients need.
    """

    reader = None

    def __init__(self, posterior: Posterior, clips: ClipSet):
        self._posterior, self._clips = posterior, clips
        self.embedded = posterior.takes == Holds.EMBEDDINGS
        self.batch_size = BATCH
        if not self.embedded:
            samples = posterior.shown(torch.empty(1, clips.samples)).shape[1]
            net = cast(Network, posterior.model.net)
            clip = _KEPT * net.activation_bytes(posterior.front_end.frames(samples))
            self.batch_size = max(1, min(BATCH, _MEMORY // clip))

    def __len__(self) -> int:
        return len(self._clips)

    def batch(self, index: Tensor, device: torch.device | str) -> tuple[Tensor, None]:
        """Waveforms ``(batch, samples)`` or embeddings ``(batch, E)``, and no targets."""
        values = torch.from_numpy(self._clips.inputs(index))
        return (values if self.embedded else self._posterior.shown(values)).to(device), None


def _name(posterior: Posterior) -> str:
    """The folder that a posterior was loaded from; a run's, where it is in one."""
    if posterior.folder is None:
        return posterior.net
    return next(name for name in reversed(posterior.folder.parts) if name != "posterior")
