"""Guards of long fits: widths in bounds, gradients of a bounded norm, and an end with one line where a fit diverges.

Adam moves a log width by about its learning rate r a step, whatever the size of the gradient. Where the gradient is
noise, log s walks at random: after T steps it has moved by about r sqrt(T), some weights up and some down, and the mean
of s^2 has grown by exp(2 r^2 T). Under a KL of full weight the prior stops it. Under one that counts little beside the
noise of the NLL, as in a tempered posterior of many clips, nothing does before the noise of the widest weights hides
the signal. A bound in units of the prior's width does; docs/long-fits.md has the measurement.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bayes_panns.bayes import BayesianNet, Part
from bayes_panns.bayes.effective import independent_widths
from bayes_panns.bayes.estimators.blocks import each_block
from bayes_panns.bayes.estimators.draw_and_kl import NormalPrior, flat, flat_prior
from bayes_panns.bayes.estimators.lazy_weight import prior_deviation
from bayes_panns.bayes.guides.part import parameter_name
from bayes_panns.core.errors import FitError
from bayes_panns.ranks import group
from bayes_panns.svi.settings import FitSettings

Limits = Mapping[str, tuple[float, float]]
"""The least and the largest log(s / s0) of each weight tensor, by the name of its parameter."""

_AT_BOUND = 1e-4
"""A log width this close to its bound is at it."""


@dataclass(frozen=True)
class _Bounded:
    """A weight whose width is bounded."""

    site: str
    log_scale: Tensor
    deviation: Callable[[], Tensor]


class ScaleBounds:
    """Holds the widths that Adam fits within bounds, in units of the prior's standard deviation s0.

    Those of mean-field Normals under Normal and Laplace priors, and of the weight of a rotated last layer along its own
    axes. s0 is the prior's at the time, where its width is learned. A tensor that starts outside has the bounds that
    its widths started at instead: nothing is moved to where it was not.

    Args:
        model: The model.
        guide: Its guide.
        bounds: The least and the largest s / s0; none for no bounds.
        others: The ``id`` of parameters that another optimiser bounds itself.
    """

    def __init__(self, model: BayesianNet, guide: Part, bounds: Sequence[float], *, others: Collection[int] = ()):
        self._bounds = tuple(math.log(each) for each in bounds)
        self._weights = {name: each for name, each in _fitted(model, guide) if id(each.log_scale) not in others}
        self._fixed = {name for name, each in self._weights.items() if each.site not in model.learned}
        self._limits: Limits = {}
        self._numbers: dict[str, tuple[float, float]] = {}

    @property
    def limits(self) -> Limits | None:
        """The bounds of each tensor; None before :meth:`start`, and for no bounds."""
        return self._limits or None

    @torch.no_grad()
    def start(self) -> None:
        """Take the widths of now as those of the start."""
        found = {}
        for name, each in self._weights.items() if self._bounds else ():
            ratio = each.log_scale - each.deviation().log()
            low, high = self._bounds
            found[name] = (min(low, ratio.min().item()), max(high, ratio.max().item()))
        self.resume(found)

    def resume(self, limits: Limits | None) -> None:
        """Go on with the bounds of a fit that was stopped; None if it had none."""
        self._limits = dict(limits or {})
        self._numbers = {}
        for name in self._fixed & self._limits.keys():
            deviation = self._weights[name].deviation()
            if deviation.dim() == 0:
                centre, (low, high) = deviation.log().item(), self._limits[name]
                self._numbers[name] = (centre + low, centre + high)

    @torch.no_grad()
    def apply(self) -> None:
        """Move widths that are outside onto their bound: one pass over them, which waits for no device."""
        for name, limits in self._limits.items():
            log_scale = self._weights[name].log_scale.detach()
            if name in self._numbers:
                log_scale.clamp_(*self._numbers[name])
            else:
                _clamp_around(log_scale, self._weights[name].deviation(), limits)

    @torch.no_grad()
    def at_upper(self) -> dict[str, float]:
        """The share of a tensor's widths that are at the upper bound, by the name of its parameter."""
        found = {}
        for name, (_, high) in self._limits.items():
            ratio = self._weights[name].log_scale - self._weights[name].deviation().log()
            found[name] = (ratio >= high - _AT_BOUND).float().mean().item()
        return found


def _fitted(model: BayesianNet, guide: Part) -> Iterator[tuple[str, _Bounded]]:
    """The weights whose widths a gradient changes, under priors that have a standard deviation."""
    for site, log_scale in independent_widths(model, guide):

        def deviation(site: str = site) -> Tensor:
            found = prior_deviation(model.prior(site))
            assert found is not None, "the prior was looked at"
            return found

        if log_scale.requires_grad and prior_deviation(model.prior(site)) is not None:
            yield parameter_name(site), _Bounded(site, log_scale, deviation)


def _clamp_around(log_scale: Tensor, deviation: Tensor, limits: tuple[float, float]) -> None:
    """Clamp log s to the bounds around the logarithm of the prior's deviations, in blocks."""
    values, priors = flat(log_scale, log_scale), flat_prior(NormalPrior(None, deviation), log_scale)
    low, high = limits

    def work(index: int, span: slice, scratch: list[Tensor], generator: torch.Generator | None) -> None:
        centre = priors.at(span).scale.log()
        torch.clamp(values[span], min=centre + low, max=centre + high, out=values[span])

    each_block(log_scale, work)


class GradientClip:
    """Shortens the gradient of all parameters of an optimiser to a largest Euclidean norm, as one vector.

    Pascanu et al., 2013 (arXiv:1211.5063). On a GPU nothing waits for the norm.

    Args:
        parameters: The parameters.
        largest: The largest norm.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], largest: float):
        self._parameters, self._largest = parameters, largest
        self._norms: list[Tensor] = []

    def __call__(self) -> None:
        """Shorten the gradient.

        Raises:
            FloatingPointError: On a CPU: it is not finite.
        """
        norm = nn.utils.clip_grad_norm_(self._parameters, self._largest)
        if norm.device.type == "cpu" and not math.isfinite(norm):
            raise FloatingPointError(f"the norm of the gradient is {norm.item()}")
        self._norms.append(norm)

    def taken(self) -> list[float]:
        """The norms before they were shortened, of each call since this was last asked."""
        norms, self._norms = self._norms, []
        return torch.stack(norms).tolist() if norms else []


def first_not_finite(objective: nn.Module, *, gradients: bool = True) -> str | None:
    """The first trained parameter that is not finite, else the first gradient, in the order of the network; or None.

    Args:
        objective: Model and guide as one module.
        gradients: Whether to look at gradients.

    Returns:
        Which values of which parameter, such as "the means of conv_block1.conv1.weight".
    """
    trained = [(name, each) for name, each in objective.named_parameters() if each.requires_grad]
    slopes = [(name, each.grad) for name, each in trained if gradients and each.grad is not None]
    for what, values in (("", [(name, each.detach()) for name, each in trained]), ("the gradient of ", slopes)):
        # All of them at once: a device need be waited for only once.
        if not values or bool(torch.stack([torch.isfinite(each).all() for _, each in values]).all()):
            continue
        bad = [name for name, each in values if not torch.isfinite(each).all()]
        return what + _described(min(bad, key=_order(objective)))
    return None


def _order(objective: nn.Module) -> Callable[[str], int]:
    """Where a parameter's layer is in the network."""
    layers: dict[str, int] = {}
    for name, _ in objective.named_modules():
        layers.setdefault(name.partition("net.")[2], len(layers))
    return lambda name: layers.get(name.partition("net.")[2].rpartition(".")[0], len(layers))


def _described(name: str) -> str:
    """A parameter of model or guide in words."""
    where, _, parameter = name.partition("net.")
    parameter = parameter.removesuffix("_unconstrained")
    kinds = {"locs": "the means of ", "log_scales": "the widths of ", "prior_log_widths": "the width of the prior of "}
    kind = next((words for part, words in kinds.items() if part in where.split(".")), "")
    return kind + (parameter or name)


def diverged(
    what: str,
    objective: nn.Module,
    settings: FitSettings,
    *,
    here: bool,
    step: int,
    epoch: float,
    natural: bool,
    checkpoint: Path | None,
) -> FitError:
    """The end of a fit in which something is not finite: one line, the same in all processes.

    All processes must call it, at the same step.

    Args:
        what: What is not finite.
        objective: Model and guide.
        settings: The settings of the fit.
        here: Whether it comes from this process.
        step: The step.
        epoch: How many passes over the clips are done.
        natural: Whether natural gradients fit the mean-field Normals.
        checkpoint: The last good checkpoint, if there is one.
    """
    ours = group()
    found = ours.gathered((here, first_not_finite(objective)))
    ranks = [rank for rank, (bad, _) in enumerate(found) if bad]
    where = f", process {ranks[0]} of {ours.size}" if 0 < len(ranks) < ours.size else ""
    place = found[ranks[0] if ranks else 0][1]
    first = f"the first that is not finite is {place}" if place else "all parameters are finite"
    kept = f"the last good checkpoint is {checkpoint}" if checkpoint is not None else "no checkpoint yet"
    remedy = _remedy(settings, natural)
    return FitError(f"step {step} (epoch {epoch:.1f}{where}): {what}; {first}; try a lower {remedy}; {kept}")


def _remedy(settings: FitSettings, natural: bool) -> str:
    """What to try at a lower value."""
    rate, clip = settings.learning_rate, settings.clip_gradient
    clipped = f"fit.clip_gradient ({'none' if clip is None else f'{clip:g}'})"
    if natural:
        own = settings.natural
        return f"fit.natural.learning_rate ({own.learning_rate:g}), fit.natural.clip ({own.clip:g}), {clipped} or " + (
            f"fit.learning_rate ({rate:g})"
        )
    return f"fit.learning_rate (it is {rate:g}), {clipped} or init_scale, or a longer fit.kl_warmup"
