"""Whether a fit can start as its recipe says."""

from bayes_panns.core.choices import Features, HeadStart
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
