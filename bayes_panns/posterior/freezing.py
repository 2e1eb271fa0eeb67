"""What ``freeze`` of a run recipe means: which parts of a posterior a fit leaves as they are."""

from collections.abc import Sequence

from bayes_panns.bayes import BayesianNet, Part
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import backbone

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
    modules = [name for name, _ in model.net.named_modules() if name]
    for part in parts:
        if part not in (BACKBONE, LOCS, *modules):
            raise RecipeError(
                f"freeze: the net has no module {part!r}; there are "
                f"{', '.join(name for name in modules if '.' not in name)} and the modules inside them, "
                f"{BACKBONE} (all but {model.head}) and {LOCS} (all but the posterior's widths)"
            )
    if not guide.explicit:
        raise RecipeError("freeze is not supported with a custom guide")
    frozen = [part for part in parts if part not in (BACKBONE, LOCS)]
    frozen += backbone(model.net, model.head) if BACKBONE in parts else ()
    model.freeze(*frozen)
    guide.freeze(*frozen)
    if LOCS in parts:
        model.freeze_points()
        guide.freeze_locs()
