"""Whether a fit can start as its recipe says."""

from bayes_panns.bayes import RotatedHead
from bayes_panns.core.choices import Features, HeadStart, Optimizer, PriorKind
from bayes_panns.core.errors import RecipeError
from bayes_panns.posterior import LOCS, Inherited, Posterior
from bayes_panns.recipes import Run
from bayes_panns.svi import require_fixed, require_single_embedding


def require_fit(posterior: Posterior, recipe: Run, inherited: Inherited | None) -> None:
    """Check that a fit as the recipe says can be made of a posterior.

    Args:
        posterior: The posterior before its first step, with its frozen parts.
        recipe: The run.
        inherited: What it took over from upstream.

    Raises:
        RecipeError: The recipe's values do not fit the posterior or each other.
    """
    guide = posterior.guide
    if recipe.head == HeadStart.PROBE and (inherited is None or not guide.explicit):
        raise RecipeError('head = "probe" needs a posterior to start from (finetune --from) and a guide recipe')
    if recipe.head == HeadStart.PROBE:
        require_single_embedding(posterior.model, 'head = "probe"', 'use head = "random"')
    if guide.needs_embeddings and recipe.fit.features != Features.EMBEDDINGS:
        raise RecipeError(
            'posterior "rotated" takes its axes from the embeddings of a frozen backbone: set '
            'fit.features = "embeddings", as the recipe rotated-head does'
        )
    fitted_first = inherited is not None and (guide.needs_embeddings or recipe.head == HeadStart.PROBE)
    if recipe.fit.optimizer == Optimizer.NATURAL_GRADIENT:
        _require_rotated_head(posterior, recipe)
    if LOCS in recipe.freeze and has_new_head(posterior, inherited) and not fitted_first:
        raise RecipeError(
            "freeze: with locs frozen, weights that no fit has changed would stay random: start from a posterior of "
            'the same labels (finetune --from), or set head = "probe"'
        )
    if recipe.fit.features == Features.EMBEDDINGS:
        require_fixed(posterior.model)


def has_new_head(posterior: Posterior, inherited: Inherited | None) -> bool:
    """Whether the last layer starts afresh, rather than from the upstream posterior."""
    return inherited is None or f"{posterior.model.head}.weight" in inherited.new


def _require_rotated_head(posterior: Posterior, recipe: Run) -> None:
    """Check that natural gradients can fit a posterior.

    Raises:
        RecipeError: They cannot.
    """
    setting = f'fit.optimizer = "{Optimizer.NATURAL_GRADIENT}"'
    parts = posterior.guide.parts
    if not any(isinstance(part, RotatedHead) for part in parts):
        raise RecipeError(
            f"{setting} is for the guide recipe rotated-head, not for {recipe.guide}; for others set fit.optimizer = "
            f'"{Optimizer.ADAM}", as the recipe fixed-features does'
        )
    if LOCS in recipe.freeze:
        raise RecipeError(
            f"{setting} fits means and widths; take {LOCS} out of freeze, or use the recipe rotated-widths"
        )
    head = posterior.model.head
    for name in (f"{head}.weight", f"{head}.bias"):
        prior = posterior.strategy.settings(name, head).prior
        if prior not in (PriorKind.FAN_IN, PriorKind.NORMAL):
            raise RecipeError(f'{setting} needs a Normal prior with mean 0; that of {name} is "{prior}"')
