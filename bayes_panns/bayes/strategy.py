"""Strategies: which weights are Bayesian, and how. The contents of a guide recipe (``guides/*.toml``).

A strategy is data. It has defaults for every site and rules over site names; each site takes each setting from the
rules that match it, else from the defaults. Two rules that give one site different values for one setting contradict
each other, and a rule that matches nothing is a mistake: both are errors.
"""

import fnmatch
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bayes_panns.bayes.estimators.estimators import LOCAL_REFUSED
from bayes_panns.bayes.priors import FanIn, FromPosterior, Laplace, Normal, Prior
from bayes_panns.bayes.sites import Site, sites
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import HEAD

Positive = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Settings(_Strict):
    """How one site is treated.

    Attributes:
        posterior: ``normal``: a mean-field Normal; ``point``: an ordinary weight without prior or uncertainty; ``map``:
            a point under its prior. For both sites of the last layer: ``rotated``, a mean-field Normal along other axes
            than the weights' own; ``low-rank``, a Normal with a covariance of low rank and a diagonal.
        prior: ``fan-in``: Normal(0, ``prior_scale`` / sqrt(fan-in)); ``normal``: Normal(0, ``prior_scale``);
            ``laplace``: as fan-in, with a Laplace's tails; ``upstream``: the posterior that the fit starts from, its
            scales times ``prior_scale``, and ``fan-in`` for sites that it does not hold.
        prior_scale: See ``prior``.
        learn_prior: Whether the prior's width is learned with the posterior, one factor a site, by the ELBO alone
            (empirical Bayes, or type-II maximum likelihood); ``prior`` is then where it starts.
        init_scale: The posterior's standard deviation at the start, in units of 1 / sqrt(fan-in), where it is not
            taken from an upstream posterior or, for ``rotated``, from the clips.
        estimator: How a fit draws a ``normal`` site: ``flipout``, ``mirrored``, ``weights``, or ``local`` (linear
            layers only). Those of the other kinds are drawn once for the batch.
    """

    posterior: Literal["normal", "point", "map", "rotated", "low-rank"] = "normal"
    prior: Literal["fan-in", "normal", "laplace", "upstream"] = "fan-in"
    prior_scale: Positive = 1.0
    learn_prior: bool = False
    init_scale: Positive = 0.1
    estimator: Literal["flipout", "mirrored", "weights", "local"] = "flipout"

    def make_prior(self, upstream: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> Prior:
        """The prior object these settings describe; ``upstream`` maps site names to (loc, scale).

        Raises:
            RecipeError: The prior is ``upstream`` and there is none.
        """
        match self.prior:
            case "fan-in":
                return FanIn(self.prior_scale)
            case "normal":
                return Normal(self.prior_scale)
            case "laplace":
                return Laplace(self.prior_scale)
        if upstream is None:
            raise RecipeError('prior "upstream" needs a posterior to start from (finetune --from)')
        locs, scales = ({name: pair[part] for name, pair in upstream.items()} for part in (0, 1))
        return FromPosterior(locs, scales, otherwise=FanIn(), widen=self.prior_scale)


class Rule(_Strict):
    """Settings for the sites whose name matches; what is left out stays as the defaults or other rules say.

    Attributes:
        match: A glob over site names, such as ``fc_audioset.*``, or several.
    """

    match: str | list[str]
    posterior: Literal["normal", "point", "map", "rotated", "low-rank"] | None = None
    prior: Literal["fan-in", "normal", "laplace", "upstream"] | None = None
    prior_scale: Positive | None = None
    learn_prior: bool | None = None
    init_scale: Positive | None = None
    estimator: Literal["flipout", "mirrored", "weights", "local"] | None = None

    def matches(self, name: str) -> bool:
        """Whether the rule speaks of the site ``name``."""
        globs = [self.match] if isinstance(self.match, str) else self.match
        return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


class Strategy(_Strict):
    """A guide recipe.

    Attributes:
        description: What it is, in a sentence.
        dropout: ``off``; ``fit``: while fitting, as PANNs; ``always``: while predicting too, Monte Carlo dropout (Gal
            and Ghahramani, 2016, arXiv:1506.02142).
        default: The settings of every site.
        rule: Exceptions by site name.
    """

    description: str = ""
    dropout: Literal["off", "fit", "always"] = "off"
    default: Settings = Settings()
    rule: list[Rule] = []

    def resolve(self, net: nn.Module) -> dict[Site, Settings]:
        """The settings of each site of ``net``, in the order of its parameters.

        Raises:
            RecipeError: A rule matches no site, two rules contradict each other, ``local`` is wanted for a
                convolution, or ``rotated`` or ``low-rank`` for other sites than those of the last layer.
        """
        found = sites(net)
        for rule in self.rule:
            if not any(rule.matches(name) for name in found):
                raise RecipeError(f"rule match = {rule.match!r}: no such site; the sites are {', '.join(found)}")
        resolved = {site: self.settings(site.name) for site in found.values()}
        for site, chosen in resolved.items():
            if chosen.posterior == "normal" and chosen.estimator == "local" and len(site.shape) > 2:
                raise RecipeError(f"site {site.name}: {LOCAL_REFUSED}")
        for kind in ("rotated", "low-rank"):
            those = [site.name for site, chosen in resolved.items() if chosen.posterior == kind]
            if those and set(those) != {f"{HEAD}.weight", f"{HEAD}.bias"}:
                raise RecipeError(
                    f'posterior "{kind}" is for the last layer, weight and bias: match = "{HEAD}.*"; here it is for '
                    f"{', '.join(those[:3])}{' ...' if len(those) > 3 else ''}"
                )
        return resolved

    def settings(self, name: str) -> Settings:
        """The settings of the site ``name``.

        Raises:
            RecipeError: Two rules contradict each other there.
        """
        chosen: dict[str, object] = {}
        for rule in self.rule:
            if rule.matches(name):
                for key, value in rule.model_dump(exclude={"match"}, exclude_none=True).items():
                    if chosen.setdefault(key, value) != value:
                        raise RecipeError(
                            f"rules contradict each other at site {name}: {key} is both {chosen[key]!r} and {value!r} "
                            f"(rules {', '.join(repr(r.match) for r in self.rule if r.matches(name))})"
                        )
        return self.default.model_copy(update=chosen)
