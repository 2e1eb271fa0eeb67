"""The ELBO, with its two parts kept apart."""

from collections.abc import Callable
from typing import Any, cast

from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import kl_divergence

from bayes_panns.bayes.estimators import LazyWeight
from bayes_panns.bayes.likelihoods import drawn_labels


class MeanFieldELBO(TraceMeanField_ELBO):
    """``TraceMeanField_ELBO`` with a weight on the KL, and without the log-probabilities that cancel.

    The loss, both terms sums over the data set in nats::

        nll_weight * NLL + kl_weight * KL

    At ``kl_weight = 1`` it is Pyro's own estimate, number for number; below 1 it fits a tempered posterior (Wenzel et
    al., 2020, arXiv:2002.02405). Where the KL has a closed form, the stock class still computes every weight's
    log-probability under model and guide; this one computes those of observed sites only.

    Attributes:
        kl_weight: The weight, which may change between steps.
        nll_weight: The weight of the NLL: 1, or the number of processes that have a part of a step's clips each. The
            mean over the processes then has the NLL of all clips of the step, and the KL once.
        nll: The last estimate of the expected negative log-likelihood of the data set, times its weight, detached.
        kl: The last KL of guide from prior, unweighted, detached.
        without_kl: Sites whose KL is left out, because an optimiser adds its gradient itself.
    """

    def __init__(self, kl_weight: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.kl_weight, self.nll_weight = kl_weight, 1.0
        self.nll: Tensor | float = 0.0
        self.kl: Tensor | float = 0.0
        self.without_kl: frozenset[str] = frozenset()
        self._observed: list[dict] = []

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, whose backward pass gives its gradients; 0-d.

        Unlike Pyro's own it does not look whether the loss is NaN, for which it would wait for a GPU.
        """
        losses, surrogates = zip(
            *(self._differentiable_loss_particle(*traces) for traces in self._get_traces(model, guide, args, kwargs)),
            strict=True,
        )
        loss, surrogate = (sum(each / self.num_particles for each in parts) for parts in (losses, surrogates))
        return loss + (surrogate - surrogate.detach())

    def forget(self) -> None:
        """Let go of the last loss's graph, and of the memory that a backward pass would have freed."""
        self._observed = []

    def sampled_nll(self) -> Tensor:
        """The negative log-likelihood of labels drawn from the model under the last estimate's weights, 0-d.

        The square of its gradient is, on average, the Gauss-Newton matrix's diagonal: at such labels a clip's gradient
        has mean 0 and the Fisher information as its variance (Martens, 2020, arXiv:1412.1193). A sum over the data set
        in nats, times its weight. Its graph is that of the last loss, whose backward pass must keep it
        (``retain_graph``).
        """
        drawn = ({**site, "value": drawn_labels(site["fn"])} for site in self._observed)
        return cast(Tensor, self.nll_weight * sum(-_log_prob(site) for site in drawn))

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        with _SetPriors(self.without_kl):
            model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)

    def _differentiable_loss_particle(self, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> tuple:
        nll: Tensor | float = 0.0
        kl: Tensor | float = 0.0
        self._observed = []
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample":
                continue
            if site["is_observed"]:
                nll = nll - _log_prob(site)
                self._observed.append(site)
                continue
            if name not in guide_trace.nodes:
                raise ValueError(f"the guide does not sample {name}")
            if name in self.without_kl:
                continue
            guide_site = guide_trace.nodes[name]
            try:
                value = guide_site["value"]
                lazy = isinstance(value, LazyWeight)
                divergence = value.kl(site["fn"]) if lazy else kl_divergence(guide_site["fn"], site["fn"])
                kl = kl + scale_and_mask(divergence, scale=guide_site["scale"], mask=guide_site["mask"]).sum()
            except NotImplementedError:
                kl = kl + _log_prob(guide_site) - _log_prob(site)
        for name, guide_site in guide_trace.nodes.items():
            if guide_site["type"] == "sample" and name not in model_trace.nodes:
                kl = kl + _log_prob(guide_site)
        nll = self.nll_weight * nll
        self.nll = nll.detach() if isinstance(nll, Tensor) else nll
        self.kl = kl.detach() if isinstance(kl, Tensor) else kl
        loss = nll + self.kl_weight * kl
        return loss.detach() if isinstance(loss, Tensor) else loss, loss


class _SetPriors(Messenger):
    """Gives each weight that the guide sampled its prior, before a layer makes it draw; other than some sites."""

    def __init__(self, others: frozenset[str]):
        super().__init__()
        self._others = others

    def _pyro_post_sample(self, msg: dict) -> None:
        if isinstance(msg["value"], LazyWeight) and msg["name"] not in self._others:
            msg["value"].set_prior(msg["fn"])


def _log_prob(site: dict) -> Tensor:
    return scale_and_mask(site["fn"].log_prob(site["value"]), scale=site["scale"], mask=site["mask"]).sum()
