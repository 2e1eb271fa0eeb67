"""What ``freeze`` of a run recipe means: which parts of a posterior a fit leaves as they are.

A frozen weight is drawn only if its posterior takes over a width from the upstream posterior; otherwise it is a point.
No fit would ever change the width of a recipe's ``init_scale``, so drawing it would add noise that no data support.
"""

from collections.abc import Collection, Sequence

from torch import nn

from bayes_panns.bayes import BayesianNet, Part, Strategy, sites
from bayes_panns.bayes.guides import FAMILIES
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import Network, backbone

BACKBONE = "backbone"
"""In ``freeze``: all modules but the last layer."""

LOCS = "locs"
"""In ``freeze``: every mean and every point weight, for a fit of the posterior's widths alone."""


def freeze(model: BayesianNet, guide: Part, parts: Sequence[str]) -> None:
    """Stop training parts of a model and its guide.

    Args:
        model: The model.
        guide: Its guide.
        parts: Names of the network's modules, such as ``resnet``, :data:`BACKBONE` or :data:`LOCS`.

    Raises:
        RecipeError: The network has no such module, or the guide is a custom one.
    """
    if not parts:
        return
    frozen = _modules(model.net, model.head, parts)
    if not guide.explicit:
        raise RecipeError("freeze is not supported with a custom guide")
    model.freeze(*frozen)
    guide.freeze(*frozen)
    if LOCS in parts:
        model.freeze_points()
        guide.freeze_locs()


def with_points(strategy: Strategy, net: Network, parts: Sequence[str], widths: Collection[str]) -> Strategy:
    """The guide recipe of a posterior that will be frozen in part: frozen weights without a width become points.

    Args:
        strategy: The guide recipe.
        net: The network.
        parts: As for :func:`freeze`.
        widths: Names of the weights that have a width in the upstream posterior.

    Returns:
        The recipe with these weights in its ``points``. Points under a prior (``map``) stay what they are.

    Raises:
        RecipeError: The network has no such module.
    """
    points = list(strategy.points)
    for module in _modules(net, net.head, parts):
        inside = [name for name in sites(net) if name.startswith(f"{module}.")]
        fixed = []
        for name in inside:
            family = FAMILIES.get(strategy.settings(name, net.head).posterior)
            if family is not None and family.stochastic and not (family.assigns_widths and name in widths):
                fixed.append(name)
        # The whole module by its name, where it is one, so that the header stays short.
        points += [f"{module}.*"] if fixed and fixed == inside else fixed
    return strategy.model_copy(update={"points": points})


def _modules(net: nn.Module, head: str, parts: Sequence[str]) -> tuple[str, ...]:
    """The modules that ``parts`` of :func:`freeze` name.

    Raises:
        RecipeError: The network has no such module.
    """
    known = [name for name, _ in net.named_modules() if name]
    for part in parts:
        if part not in (BACKBONE, LOCS, *known):
            raise RecipeError(
                f"freeze: the net has no module {part!r}; there are "
                f"{', '.join(name for name in known if '.' not in name)} and the modules inside them, "
                f"{BACKBONE} (all but {head}) and {LOCS} (all but the posterior's widths)"
            )
    named = [part for part in parts if part not in (BACKBONE, LOCS)]
    return (*named, *(backbone(net, head) if BACKBONE in parts else ()))
