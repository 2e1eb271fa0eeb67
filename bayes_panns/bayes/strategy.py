"""Strategies: which weights are Bayesian, and how. The contents of a guide recipe (``guides/*.toml``).

A strategy is data. It has defaults for every site, and rules over site names. Each site takes each setting from the
rules that match it, else from the defaults. It is an error if two rules give one site different values of one setting,
and if a rule matches no site.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bayes_panns.bayes.estimators import LOCAL_REFUSED
from bayes_panns.bayes.priors import FanIn, FromPosterior, Laplace, Normal, Prior
from bayes_panns.bayes.sites import Site, sites
from bayes_panns.core.choices import Dropout, EstimatorKind, PosteriorKind, PriorKind
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import head_of, segmentwise

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Strict models take an enum's member only; recipes give its word.
_Posterior = Annotated[PosteriorKind, Field(strict=False)]
_Prior = Annotated[PriorKind, Field(strict=False)]
_Estimator = Annotated[EstimatorKind, Field(strict=False)]
_Dropout = Annotated[Dropout, Field(strict=False)]

_FOR_THE_HEAD = (PosteriorKind.ROTATED, PosteriorKind.LOW_RANK)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Settings(_Strict):
    """How one site is treated.

    The words are those of :mod:`bayes_panns.core.choices`.

    Attributes:
        posterior: The posterior family: :class:`~bayes_panns.core.choices.PosteriorKind`. ``rotated`` and ``low-rank``
            are for both sites of the last layer.
        prior: The prior: :class:`~bayes_panns.core.choices.PriorKind`. ``upstream`` falls back to ``fan-in`` for sites
            that the upstream posterior does not share, such as a new head.
        prior_scale: See ``prior``.
        learn_prior: Whether the prior's width is learned with the posterior, one factor a site, by maximising the ELBO
            (empirical Bayes, or type-II maximum likelihood). ``prior`` is then where it starts.
        init_scale: The posterior's standard deviation at the start, in units of 1 / sqrt(fan-in), where it is not
            taken from an upstream posterior or, for ``rotated``, from the clips.
        estimator: How a fit draws a ``normal`` site: :class:`~bayes_panns.core.choices.EstimatorKind`. Sites of the
            other families are drawn once for the batch.
    """

    posterior: _Posterior = PosteriorKind.NORMAL
    prior: _Prior = PriorKind.FAN_IN
    prior_scale: Positive = 1.0
    learn_prior: bool = False
    init_scale: Positive = 0.1
    estimator: _Estimator = EstimatorKind.FLIPOUT

    def make_prior(self, upstream: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> Prior:
        """The prior object that these settings describe; ``upstream`` maps parameter names to (loc, scale).

        Raises:
            RecipeError: The prior is ``upstream`` and there is none, or ``start``, which a strategy makes a ``normal``.
        """
        match self.prior:
            case PriorKind.START:
                raise RecipeError('prior "start" needs the weights that a fit starts from: see Strategy.started')
            case PriorKind.FAN_IN:
                return FanIn(self.prior_scale)
            case PriorKind.NORMAL:
                return Normal(self.prior_scale)
            case PriorKind.LAPLACE:
                return Laplace(self.prior_scale)
        if upstream is None:
            raise RecipeError('prior "upstream" needs a posterior to start from (finetune --from)')
        locs, scales = ({name: pair[part] for name, pair in upstream.items()} for part in (0, 1))
        return FromPosterior(locs, scales, otherwise=FanIn(), widen=self.prior_scale)


class Rule(_Strict):
    """Settings for the sites whose name matches; the others come from other rules or the defaults.

    Attributes:
        match: A glob over site names, such as ``conv_block1.*``, or several. ``head.weight`` and ``head.bias`` match
            the last layer, whatever its name in the network.
    """

    match: str | list[str]
    posterior: _Posterior | None = None
    prior: _Prior | None = None
    prior_scale: Positive | None = None
    learn_prior: bool | None = None
    init_scale: Positive | None = None
    estimator: _Estimator | None = None

    def matches(self, name: str, head: str | None = None) -> bool:
        """Whether the rule is for the site ``name`` of a network whose last layer is called ``head``.

        Example:
            >>> Rule(match="head.*").matches("classifier.5.bias", head="classifier.5")
            True
        """
        return _matches(self.match, name, head)


class Strategy(_Strict):
    """A guide recipe.

    Attributes:
        description: What it is, in a sentence.
        dropout: When the network's dropouts are on: :class:`~bayes_panns.core.choices.Dropout`. ``always`` is Monte
            Carlo dropout (Gal and Ghahramani, 2016, arXiv:1506.02142).
        default: The settings of every site.
        rule: Exceptions by site name.
        points: Sites that are points, whatever the default and the rules say: globs, as ``match`` of a rule. A
            posterior's are those that its fit froze without a width; see
            :func:`~bayes_panns.posterior.freezing.with_points`.
        start_scales: The root mean square of the weights where the fit started, by site, for the prior ``start``;
            :meth:`started` fills it.
    """

    description: str = ""
    dropout: _Dropout = Dropout.OFF
    default: Settings = Settings()
    rule: list[Rule] = []
    points: list[str] = []
    start_scales: dict[str, Positive] = {}

    def resolve(self, net: nn.Module) -> dict[Site, Settings]:
        """The settings of each site of ``net``, in the order of its parameters.

        Raises:
            RecipeError: A rule or a glob of ``points`` matches no site, two rules contradict each other, ``local`` is
                wanted for a convolution or a layer that is applied to segments of a clip, ``rotated`` or ``low-rank``
                for other sites than those of the last layer, ``rotated`` for a last layer that is applied to segments,
                or dropout is always on and the network has none.
        """
        found, head = sites(net), head_of(net)
        named = [("rule match", rule.match) for rule in self.rule] + [("points", glob) for glob in self.points]
        for key, globs in named:
            if not any(_matches(globs, name, head) for name in found):
                raise RecipeError(f"{key} = {globs!r}: no such site; the sites are {', '.join(found)}")
        resolved = {site: self.settings(site.name, head) for site in found.values()}
        for site, chosen in resolved.items():
            local = chosen.posterior == PosteriorKind.NORMAL and chosen.estimator == EstimatorKind.LOCAL
            if local and (len(site.shape) > 2 or site.name.rpartition(".")[0] in segmentwise(net)):
                raise RecipeError(f"site {site.name}: {LOCAL_REFUSED}")
        for family in _FOR_THE_HEAD:
            names = [site.name for site, chosen in resolved.items() if chosen.posterior == family]
            if names and set(names) != {f"{head}.weight", f"{head}.bias"}:
                raise RecipeError(
                    f'posterior "{family}" is for the last layer, weight and bias: match = "head.*"; here it is for '
                    f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
                )
            if names and family == PosteriorKind.ROTATED and head in segmentwise(net):
                raise RecipeError(
                    f'posterior "{family}" takes its axes from one embedding of each clip, but this network applies '
                    "its last layer to every segment of a clip; use normal or low-rank"
                )
        if self.dropout == Dropout.ALWAYS and not any(isinstance(module, nn.Dropout) for module in net.modules()):
            raise RecipeError('dropout = "always": this network has no dropout, so no two draws would differ')
        return resolved

    def settings(self, name: str, head: str | None = None) -> Settings:
        """The settings of the site ``name`` of a network whose last layer is called ``head``.

        Raises:
            RecipeError: Two rules contradict each other there.
        """
        chosen: dict[str, object] = {}
        matching = [rule for rule in self.rule if rule.matches(name, head)]
        for rule in matching:
            for key, value in rule.model_dump(exclude={"match"}, exclude_none=True).items():
                if chosen.setdefault(key, value) != value:
                    raise RecipeError(
                        f"rules contradict each other at site {name}: {key} is both {str(chosen[key])!r} and "
                        f"{str(value)!r} (rules {', '.join(repr(each.match) for each in matching)})"
                    )
        if _matches(self.points, name, head):
            chosen["posterior"] = PosteriorKind.POINT
        settings = self.default.model_copy(update=chosen)
        if settings.prior == PriorKind.START and name in self.start_scales:
            scale = settings.prior_scale * self.start_scales[name]
            return settings.model_copy(update={"prior": PriorKind.NORMAL, "prior_scale": scale})
        return settings

    def started(self, net: nn.Module, means: Mapping[str, Tensor] | None = None) -> Self:
        """The recipe with ``start_scales`` for the sites of ``net`` under the prior ``start``.

        A network with BatchNorm computes the same for weights of any size, and fits leave sizes behind that differ from
        layer to layer. The noise that a layer bears is in proportion to its weights, so their size is the unit of the
        prior.

        Args:
            net: The network.
            means: The weights that the fit starts from, by name; by default those of ``net``. A weight that is not
                among them, a bias and a weight of zeros count as 1 / sqrt(fan-in).
        """
        parameters = dict(net.named_parameters())
        scales = dict(self.start_scales)
        for name, site in sites(net).items():
            if name in scales or self.settings(name, head_of(net)).prior != PriorKind.START:
                continue
            value = parameters[name] if means is None else means.get(name)
            rms = 0.0 if value is None or value.dim() < 2 else float(value.detach().square().mean().sqrt())
            scales[name] = rms or site.fan_in**-0.5
        return self.model_copy(update={"start_scales": scales})


def _matches(globs: str | Sequence[str], name: str, head: str | None) -> bool:
    """Whether one of ``globs`` matches the site ``name`` of a network whose last layer is called ``head``."""
    globs, names = [globs] if isinstance(globs, str) else globs, [name]
    if head is not None and name.startswith(f"{head}."):
        names.append("head" + name.removeprefix(head))
    return any(fnmatch.fnmatchcase(each, glob) for each in names for glob in globs)
