"""How a fit starts, and whether it can start as its recipe says."""

import logging

from bayes_panns.bayes import MeanField, RotatedHead, Strategy
from bayes_panns.clips import ClipSet
from bayes_panns.core.choices import (
    Dropout,
    EmbeddingKind,
    Features,
    HeadStart,
    Holds,
    Optimizer,
    PosteriorKind,
    WidthStart,
)
from bayes_panns.core.errors import RecipeError
from bayes_panns.jobs.inputs import posterior_at
from bayes_panns.nets import EmbeddingNet, pooled
from bayes_panns.nets.embeddings import FAMILY
from bayes_panns.posterior import LOCS, Inherited, Posterior, read_header
from bayes_panns.recipes import Run, replaced
from bayes_panns.svi import (
    Earlier,
    Selection,
    require_fisher,
    require_fixed,
    require_natural,
    require_normal_prior,
    require_single_embedding,
    trained_weights,
)

logger = logging.getLogger(__name__)

DEFAULT_NET = "resnet14-narrow"
"""The network of a fit from scratch whose recipe names none."""

_ON_EMBEDDINGS = "det, map-head, det-flip, last-layer, low-rank-head or rotated-head"
"""The guide recipes of the last layer alone."""


def with_net(recipe: Run, clips: ClipSet) -> Run:
    """The recipe with the network that it leaves open.

    Raises:
        PosteriorError: It is the upstream posterior's, which cannot be read.
    """
    if recipe.net is not None:
        return recipe
    if clips.holds == Holds.EMBEDDINGS:
        net = f"{FAMILY}-{clips.width}"
    else:
        net = DEFAULT_NET if recipe.upstream is None else read_header(posterior_at(recipe.upstream))["net"]
    return replaced(recipe, {"net": net})


def net_for(recipe: Run, clips: ClipSet, strategy: Strategy | None) -> str:
    """The name of the network that a run fits to its clips.

    For embeddings it is the network of their width, such as ``embeddings-1024``; a recipe may name it, or
    ``embeddings`` for any width.

    Args:
        recipe: The run, as :func:`with_net` completes it.
        clips: Its clips.
        strategy: Its guide recipe; None for a guide in Python.

    Raises:
        RecipeError: The network takes sound and the clips are embeddings, or the other way round, or of another width;
            or they are embeddings, and the recipe asks for more than a last layer.
    """
    named = str(recipe.net)
    family, _, width = named.partition("-")
    path = clips.stores[0].path
    if clips.holds == Holds.WAVEFORMS:
        if family == FAMILY:
            raise RecipeError(
                f"{path}: holds {clips.contents}, but net = {named!r} takes embeddings of another model; name a store "
                "of such embeddings, or another net"
            )
        return pooled(named) if recipe.embedding == EmbeddingKind.POOLED else named
    if family != FAMILY:
        raise RecipeError(
            f"{path}: holds {clips.contents}, but net = {named!r} takes sound; fit a recipe that names no net, such as "
            f"rotated-head or fixed-features, or --set net={FAMILY}"
        )
    if width not in ("", str(clips.width)):
        raise RecipeError(f"{path}: holds {clips.contents}, but net = {named!r} takes {width}; set net={FAMILY}")
    net = f"{FAMILY}-{clips.width}"
    _require_last_layer(net, recipe, strategy)
    return net


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
    # The embeddings of another model are as fixed as those of an upstream posterior.
    given = inherited is not None or posterior.takes == Holds.EMBEDDINGS
    if posterior.takes == Holds.EMBEDDINGS and LOCS in recipe.freeze and not guide.stochastic:
        raise RecipeError(
            f"guide {recipe.guide}: has points only, and freeze holds {LOCS}, so there is nothing to fit; take it "
            "out with --set 'freeze=[]'"
        )
    if recipe.head == HeadStart.PROBE and not (given and guide.explicit):
        raise RecipeError('head = "probe" needs a posterior to start from (finetune --from) and a guide recipe')
    if recipe.head == HeadStart.PROBE:
        require_single_embedding(posterior.model, 'head = "probe"', 'use head = "random"')
    if guide.needs_embeddings and recipe.fit.features != Features.EMBEDDINGS:
        raise RecipeError(
            'posterior "rotated" takes its axes from the embeddings of a frozen backbone: set '
            'fit.features = "embeddings", as the recipe rotated-head does'
        )
    fitted_first = given and (guide.needs_embeddings or recipe.head == HeadStart.PROBE)
    if recipe.fit.optimizer == Optimizer.NATURAL_GRADIENT:
        _require_natural(posterior, recipe)
    if recipe.fit.start == WidthStart.FISHER and trained_weights(guide):
        try:
            require_fisher(posterior.model, guide)
        except ValueError as error:
            raise RecipeError(f'fit.start = "{WidthStart.FISHER}": {error}') from error
    if LOCS in recipe.freeze and has_new_head(posterior, inherited) and not fitted_first:
        raise RecipeError(
            "freeze: with locs frozen, weights that no fit has changed would stay random: start from a posterior of "
            'the same labels (finetune --from), or set head = "probe"'
        )
    if recipe.fit.features == Features.EMBEDDINGS:
        require_fixed(posterior.model)
        _require_known_backbone(posterior, inherited)


def earlier_head(recipe: Run, posterior: Posterior, upstream: Posterior | None) -> Earlier | None:
    """The upstream's last layer as the prior of new clips, where the recipe says so; otherwise None.

    Args:
        recipe: The run.
        posterior: The posterior before its first step.
        upstream: The one that it starts from.

    Raises:
        RecipeError: The recipe says so, and the two do not fit.
    """
    head = None if upstream is None else _rotated(upstream)
    if recipe.head != HeadStart.UPSTREAM:
        if head is not None and upstream is not None and takes_all_clips(posterior, recipe):
            _explain_fresh_head(recipe, posterior, upstream)
        return None
    setting = f'head = "{HeadStart.UPSTREAM}"'
    if upstream is None or head is None or not takes_all_clips(posterior, recipe):
        raise RecipeError(
            f"{setting}: needs a posterior with a rotated last layer to go on from (finetune --from), such as one that "
            "the recipe rotated-head has fitted; fit rotated-head first"
        )
    if upstream.labels != posterior.labels:
        new = [label for label in posterior.labels if label not in upstream.labels]
        gone = [label for label in upstream.labels if label not in posterior.labels]
        differ = f"{new[0]!r} is new" if new else f"{gone[0]!r} is missing" if gone else "their order is another"
        advice = (
            "fit all clips again with the recipe rotated-head, with --data for the old and the new ones"
            if new
            else f"pack the new clips with --labels {recipe.upstream}"
        )
        raise RecipeError(f"{setting}: the new clips have other labels than the posterior ({differ}); {advice}")
    weight = upstream.model.head_sites[0]
    scale = upstream.model.prior(weight).variance.mean().sqrt().item()
    return Earlier(head, scale, float(upstream.provenance.get("kl_weight", 1.0)))


def _rotated(posterior: Posterior) -> RotatedHead | None:
    return next((part for part in posterior.guide.parts if isinstance(part, RotatedHead)), None)


def _explain_fresh_head(recipe: Run, posterior: Posterior, upstream: Posterior) -> None:
    """Say that a last layer of the same labels is not used."""
    if upstream.labels == posterior.labels:
        logger.info(
            f"the last layer is fitted to these clips alone; what {recipe.upstream} learned of its labels is kept by "
            "the recipe continue, or by a fit to its clips and these together"
        )


def has_new_head(posterior: Posterior, inherited: Inherited | None) -> bool:
    """Whether the last layer starts afresh, rather than from the upstream posterior."""
    return inherited is None or f"{posterior.model.head}.weight" in inherited.new


def _require_last_layer(net: str, recipe: Run, strategy: Strategy | None) -> None:
    """Check what a recipe asks of embeddings that another model has made.

    Args:
        net: The network's name.
        recipe: The run.
        strategy: Its guide recipe; None for a guide in Python.

    Raises:
        RecipeError: It asks for a spectrogram or for a backbone, and there is none.
    """
    if recipe.fit.features != Features.EMBEDDINGS or recipe.fit.views:
        raise RecipeError(
            f"net {net}: a fit to embeddings of another model sees no sound; set fit.features = "
            f'"{Features.EMBEDDINGS}" and fit.views = 0, as the recipes rotated-head and fixed-features do'
        )
    if strategy is not None and _of_backbone(strategy):
        raise RecipeError(
            f"guide {recipe.guide}: is of more than the last layer, and {net} has no backbone to make Bayesian: its "
            f"last layer is all there is; take {_ON_EMBEDDINGS}"
        )


def _of_backbone(strategy: Strategy) -> bool:
    """Whether a strategy says something of other layers than the last."""
    globs = [glob for rule in strategy.rule for glob in ([rule.match] if isinstance(rule.match, str) else rule.match)]
    others = any(not glob.startswith(("head.", f"{EmbeddingNet.head}.")) for glob in globs)
    return others or strategy.default.posterior != PosteriorKind.POINT or strategy.dropout == Dropout.ALWAYS


def takes_all_clips(posterior: Posterior, recipe: Run) -> bool:
    """Whether a step of the fit takes all clips: natural gradients of a rotated last layer."""
    natural = recipe.fit.optimizer == Optimizer.NATURAL_GRADIENT
    return natural and any(isinstance(part, RotatedHead) for part in posterior.guide.parts)


def _require_natural(posterior: Posterior, recipe: Run) -> None:
    """Check that natural gradients can fit a posterior.

    Raises:
        RecipeError: They cannot.
    """
    setting, head = f'fit.optimizer = "{Optimizer.NATURAL_GRADIENT}"', posterior.model.head
    if LOCS in recipe.freeze:
        raise RecipeError(
            f"{setting} fits means and widths; take {LOCS} out of freeze, or fit the widths alone by "
            f'fit.optimizer = "{Optimizer.ADAM}", as the recipe rotated-widths does'
        )
    try:
        if takes_all_clips(posterior, recipe):
            if any(f"{head}.".startswith(f"{module}.") for module in recipe.freeze):
                raise ValueError(f"this fit is of the last layer, and freeze holds it; take {head} out of freeze")
            recipe.fit.require_all_clips()
            for site in posterior.model.head_sites:
                require_normal_prior(posterior.model, site, centred=True)
        else:
            if recipe.fit.features == Features.EMBEDDINGS or recipe.fit.selection != Selection():
                raise ValueError(
                    "on embeddings, and with a selection, it is for the guide recipe rotated-head, not for "
                    f'{recipe.guide}; for others set fit.optimizer = "{Optimizer.ADAM}", as the recipe fixed-features '
                    "does"
                )
            other = [part for part in posterior.guide.parts if part.stochastic and not isinstance(part, MeanField)]
            if other and not trained_weights(posterior.guide):
                raise ValueError(
                    f"guide {recipe.guide} has no mean-field Normals that are trained, and other widths are Adam's; "
                    f'set fit.optimizer = "{Optimizer.ADAM}"'
                )
            require_natural(posterior.model, posterior.guide)
    except ValueError as error:
        raise RecipeError(f"{setting}: {error}") from error


def _require_known_backbone(posterior: Posterior, inherited: Inherited | None) -> None:
    """Check that a backbone that stays as it is was fitted before.

    Raises:
        RecipeError: It holds random weights.
    """
    if posterior.takes == Holds.EMBEDDINGS:
        return
    head = f"{posterior.model.head}."
    if inherited is None:
        raise RecipeError(
            "freeze: the backbone would stay random; start from a posterior (finetune --from), such as a published "
            "checkpoint that was imported"
        )
    new = [name for name in inherited.new if not name.startswith(head)]
    if new:
        raise RecipeError(
            f"freeze: {new[0]} and {len(new) - 1} more tensors before the last layer are not in the upstream posterior "
            "and would stay random; leave net out of the recipe, or start from a posterior of the same network"
        )
