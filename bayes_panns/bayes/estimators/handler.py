"""The estimators by name, the distribution that draws by one, and the effect handler that chooses one for a block."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints

from bayes_panns.bayes.estimators.flipout import FlipoutWeight
from bayes_panns.bayes.estimators.lazy_weight import LazyWeight
from bayes_panns.bayes.estimators.local import LocalWeight
from bayes_panns.bayes.estimators.mirrored import MirroredWeight
from bayes_panns.bayes.estimators.shared import SharedWeight
from bayes_panns.core.choices import EstimatorKind

ESTIMATORS: dict[str, type[LazyWeight]] = {
    EstimatorKind.WEIGHTS: SharedWeight,
    EstimatorKind.FLIPOUT: FlipoutWeight,
    EstimatorKind.MIRRORED: MirroredWeight,
    EstimatorKind.LOCAL: LocalWeight,
}
"""The estimators by name. An estimator of your own is a subclass of ``LazyWeight``, added here under its name."""


def require_estimator(name: str) -> None:
    """Check that there is an estimator of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in ESTIMATORS:
        raise ValueError(f"estimator {name!r}: no such estimator; there are {', '.join(ESTIMATORS)}")


class LazyNormal(dist.Normal):
    """Normal(``loc``, exp(``log_scale``)) over a weight, whose draws are :class:`LazyWeight` of an estimator.

    Its density and its KL are those of the Normal.

    Args:
        loc: Means.
        log_scale: Logarithms of the standard deviations, shape of ``loc``.
        estimator: One of :data:`ESTIMATORS`.
    """

    arg_constraints: ClassVar[dict] = {"loc": constraints.real, "log_scale": constraints.real}

    def __init__(self, loc: Tensor, log_scale: Tensor, estimator: str):
        self.loc, self.log_scale, self.estimator = loc, log_scale, estimator
        # Unvalidated: validation would read every weight, and every log-scale is valid.
        torch.distributions.Distribution.__init__(self, loc.shape, validate_args=False)

    @property
    def scale(self) -> Tensor:
        """Standard deviations."""
        return self.log_scale.exp()

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> dist.TorchDistribution:
        """An ordinary Normal with a larger batch shape."""
        return dist.Normal(self.loc, self.scale, validate_args=False).expand(batch_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """One weight, not yet drawn; or ordinary draws, if several are asked for."""
        if sample_shape:
            return dist.Normal(self.loc, self.scale, validate_args=False).rsample(sample_shape)
        return ESTIMATORS[self.estimator](self.loc, self.log_scale)


class Estimator(Messenger):
    """The effect handler that makes every Normal site inside it draw by the named estimator.

    The outermost handler wins, so it overrides what a guide chooses for itself::

        with Estimator("flipout"):
            elbo.loss_and_grads(model, guide, x, y)

    Args:
        name: One of :data:`ESTIMATORS`.

    Raises:
        ValueError: There is no estimator of that name.
    """

    def __init__(self, name: str):
        super().__init__()
        require_estimator(name)
        self.name = name

    def _pyro_sample(self, msg: dict) -> None:
        fn = msg["fn"]
        normal = fn.base_dist if isinstance(fn, dist.Independent) else fn
        # A replayed site has its value already; a model's prior stays as it is.
        if msg["done"] or msg["is_observed"] or not isinstance(normal, dist.Normal) or fn.batch_shape:
            return
        log_scale = normal.log_scale if isinstance(normal, LazyNormal) else normal.scale.log()
        msg["fn"] = LazyNormal(normal.loc, log_scale, self.name).to_event(normal.loc.dim())
