"""The widths of the mean-field Normals of a fit: where they start, and warnings where they say little in the end.

A width is a weight's standard deviation s. See :mod:`bayes_panns.bayes.effective` for the effective parameters.
"""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from bayes_panns.bayes import BayesianNet, Effective, EffectiveParameters, Part
from bayes_panns.bayes.guides.part import parameter_name
from bayes_panns.core.choices import WidthStart
from bayes_panns.svi.fisher import BATCH, start_from_fisher
from bayes_panns.svi.loader import Inputs
from bayes_panns.svi.natural_gradient import trained_weights
from bayes_panns.svi.settings import FitSettings

ALL_PRIOR = 0.01
"""A posterior is the prior if less than this share of its weights is determined by the data."""

ALL_START = 0.1
"""Widths are those of the start if |log(s / start)| is below this, as a root mean square: within about 10 %."""

AT_BOUND = 0.01
"""Widths of a layer are at their bound if this share of them is."""

_ALIKE = 0.01
"""Below this standard deviation of log s the widths of a tensor are within about 1 % of each other."""

LogWidths = Mapping[str, tuple[float, float]]
"""Mean and standard deviation of log s over the weights of a tensor, by the name of the parameter."""


def trained_log_scales(guide: Part, *, rotated: bool = True) -> dict[str, Tensor]:
    """The logarithms of the widths that a fit of a guide changes, by the name of the parameter: the parameters.

    Args:
        guide: The guide.
        rotated: Whether a rotated last layer counts: then those of its factors.
    """
    return {parameter_name(each.site): each.log_scale for each in trained_weights(guide, rotated=rotated)}


def start_widths(
    model: BayesianNet,
    guide: Part,
    data: Inputs,
    settings: FitSettings,
    *,
    factor: float,
    device: torch.device,
    workers: int,
) -> None:
    """Set the widths that a fit starts with.

    Args:
        model: The model.
        guide: Its guide.
        data: The clips to fit.
        settings: The settings of the fit; ``start`` says where the widths come from.
        factor: A factor on them, above 0.
        device: Where to compute.
        workers: How many processes read clips ahead.
    """
    if settings.start == WidthStart.FISHER and trained_weights(guide):
        with model.computing_in(settings.precision):
            start_from_fisher(
                model,
                guide,
                data,
                clips=len(data),
                kl_weight=settings.kl_weight,
                batch_size=min(BATCH, settings.batch_size),
                device=device,
                workers=workers,
            )
    if factor != 1:
        widen(guide, factor)


@torch.no_grad()
def widen(guide: Part, factor: float) -> None:
    """Multiply the widths that a fit of a guide changes by a factor above 0."""
    for log_scale in trained_log_scales(guide).values():
        log_scale.add_(math.log(factor))


@torch.no_grad()
def log_widths(guide: Part) -> dict[str, tuple[float, float]]:
    """Where the widths of the weights are that a fit changes; see :data:`LogWidths`.

    A rotated last layer is left out: its widths start at those of a Laplace approximation, not at a guess.
    """
    return {name: _mean_and_deviation(values) for name, values in trained_log_scales(guide, rotated=False).items()}


def _mean_and_deviation(values: Tensor) -> tuple[float, float]:
    # From the first value on: rounding must not make a deviation of equal values.
    first = values.flatten()[0]
    variance, mean = torch.var_mean(values - first, correction=0)
    return (first + mean).item(), variance.sqrt().item()


def prior_warning(effective: EffectiveParameters, trained: Collection[str]) -> str | None:
    """What to say of a posterior, or of layers of it, that are all prior.

    That is so where less than 1 % of the trained weights are determined by the data.

    Args:
        effective: The effective parameters.
        trained: The weights that count, by name: those of :func:`log_widths`.

    Returns:
        One line; None if there is nothing to say.
    """
    layers = EffectiveParameters({name: each for name, each in effective.by_parameter.items() if name in trained})
    total = layers.total
    if not total.weights or total.share >= ALL_PRIOR:
        return _layers_warning(layers.by_layer) if total.weights else None
    return (
        f"the posterior is all prior: the data determine {total.gamma:,.3g} of the {total.weights:,} weights that were "
        f"fitted ({100 * total.share:.2g} %), so its epistemic uncertainty is the prior's and says little about these "
        "clips; lower fit.kl_weight, widen the prior (prior_scale), make fewer layers variational, or fit the recipe "
        "rotated-head"
    )


def _layers_warning(layers: Mapping[str, Effective]) -> str | None:
    """The same of some layers of a posterior that as a whole is none."""
    found = [name for name, each in layers.items() if each.share < ALL_PRIOR]
    if not found:
        return None
    share = sum(layers[name].weights for name in found) / sum(each.weights for each in layers.values())
    return (
        f"{_count(found, layers)}, {100 * share:.2g} % of the weights that were fitted, are at their prior: the data "
        f"determine less than {100 * ALL_PRIOR:.0f} % of their weights, so their draws are draws of the prior; lower "
        "fit.kl_weight, or make these layers points by a rule of the guide recipe"
    )


def bound_warning(at_upper: Mapping[str, float], settings: FitSettings) -> str | None:
    """What to say of widths that are at their upper bound: 1 % or more of those of a layer.

    Args:
        at_upper: The share of each weight tensor, of :meth:`~bayes_panns.svi.ScaleBounds.at_upper`.
        settings: The settings of the fit.

    Returns:
        One line; None if there is nothing to say.
    """
    shares: dict[str, float] = {}
    for name, share in at_upper.items():
        layer = name.rpartition(".")[0]
        shares[layer] = max(share, shares.get(layer, 0.0))
    found = [name for name, share in shares.items() if share >= AT_BOUND]
    if not found:
        return None
    return (
        f"widths of {_count(found, shares)} are at their upper bound, {settings.scale_bounds[1]:g} times the prior's "
        "or where they started: they drift along noise, or the start is too wide; lower "
        f'fit.learning_rate ({settings.learning_rate:g}) or init_scale, or set fit.optimizer = "natural-gradient"'
    )


def _count(found: Collection[str], layers: Collection[str]) -> str:
    """Some layers of a network, by the names of the modules that hold nothing else, and how many of how many."""
    return f"{_joined(modules_of(found, layers))} ({len(found)} of {len(layers)} layers)"


def modules_of(found: Collection[str], layers: Collection[str]) -> list[str]:
    """The fewest modules that hold the layers ``found``, and no others of ``layers``.

    Example:
        >>> modules_of(["conv1.a", "conv1.b", "conv2.a"], ["conv1.a", "conv1.b", "conv2.a", "conv2.b"])
        ['conv1', 'conv2.a']
    """
    chosen: list[str] = []
    for name in found:
        places = name.split(".")
        for depth in range(1, len(places) + 1):
            module = ".".join(places[:depth])
            inside = [each for each in layers if f"{each}.".startswith(f"{module}.")]
            if all(each in found for each in inside):
                break
        if module not in chosen:
            chosen.append(module)
    return chosen


def _joined(names: list[str]) -> str:
    """Names in a sentence: at most five."""
    shown = names if len(names) <= 5 else [*names[:4], f"{len(names) - 4} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def start_warning(start: LogWidths, end: LogWidths, weights: Mapping[str, int]) -> str | None:
    """What to say of a posterior that is all start: its widths are hardly where data could have put them.

    The measure is the root mean square of log(s / start), over all weights of the tensors whose widths started alike,
    within 1 % of each other. For these it follows from mean and standard deviation of log s: such a start is a guess,
    also if it is that of an upstream posterior. Widths that started apart from each other know the weights already and
    may well stay: they do not count, and nothing is said if they are most of the weights.

    Args:
        start: The widths before the first step.
        end: Those now.
        weights: How many weights each tensor has.

    Returns:
        One line; None if there is nothing to say.
    """
    guessed = [name for name, (_, deviation) in start.items() if deviation < _ALIKE]
    count, trained = sum(weights[name] for name in guessed), sum(weights[name] for name in start)
    if not guessed or 2 * count < trained:
        return None
    moves = {name: (end[name][0] - start[name][0]) ** 2 + end[name][1] ** 2 for name in guessed}
    moved = math.sqrt(sum(weights[name] * moves[name] for name in guessed) / count)
    if moved >= ALL_START:
        return None
    return (
        f"the posterior's widths are those of the start: the fit has moved the widths of {count:,} weights by "
        f"{100 * math.expm1(moved):.2g} %, so its effective parameters and its epistemic uncertainty come from "
        'init_scale, not from the clips; fit.optimizer = "natural-gradient" infers widths'
    )
