"""What is compared: each contender is a function that sets itself up and returns one step of its work."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuide, AutoNormal, init_to_value
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bayes_panns.audio.front_end import FRONT_ENDS, FrontEnd
from bayes_panns.bayes import BayesianNet, MultiLabel, Settings, Strategy, guide_from_strategy
from bayes_panns.clips import Task
from bayes_panns.core.choices import Precision
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import Network, build
from bayes_panns.posterior import Posterior
from bayes_panns.recipes import read_strategy
from bayes_panns.svi import MeanFieldELBO, NaturalGradient

CLASSES = 527
DATA_SET = 2_000_000
"""About AudioSet: what the KL is weighed against. No time depends on it."""
DRAWS = 20
"""Of the last layer, in one step."""
FEW = 4
"""Draws of every weight in one step, which takes about as long as as many passes. Ours come in fours."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Work:
    """What every contender of a run is given.

    Attributes:
        net: One of :data:`bayes_panns.nets.NETS`.
        clips: Clips a batch.
        seconds: The length of a clip.
        device: ``cpu`` or ``cuda``.
        threads: Threads of a worker process.
        precision: ``float32``, or ``bf16`` for autocast to bfloat16.
    """

    net: str
    clips: int
    seconds: float
    device: str
    threads: int
    precision: str

    def front_end(self) -> FrontEnd:
        """The network's own front end, at the highest rate that it takes."""
        with torch.device("meta"):
            net = build(self.net, CLASSES)
        for rate in sorted(FRONT_ENDS, reverse=True):
            with suppress(RecipeError):
                return net.front_end(rate).to(self.device)
        raise RecipeError(f"net {self.net}: takes no waveforms at {sorted(FRONT_ENDS)} Hz")

    @property
    def sample_rate(self) -> int:
        """That of the front end, in Hz."""
        return self.front_end().settings.sample_rate

    def waveforms(self) -> Tensor:
        """Noise, shape ``(clips, samples)``."""
        return 0.1 * torch.randn(self.clips, round(self.seconds * self.sample_rate), device=self.device)

    def labelled(self) -> tuple[Tensor, Tensor]:
        """Log-mels ``(clips, frames, mels)`` and labels ``(clips, 527)``."""
        target = torch.rand(self.clips, CLASSES, device=self.device) < 0.01
        return self.front_end()(self.waveforms()), target.float()

    def network(self) -> Network:
        """The deterministic network, in training mode but for its dropouts, which no contender uses."""
        net = build(self.net, CLASSES)
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return net.to(self.device)

    def autocast(self) -> torch.autocast:
        """The context in which a contender computes its loss or predictions."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True)
class Contender:
    """One thing to measure.

    Attributes:
        summary: What it is, for the table.
        make: Sets it up and returns its step.
        baseline: The contender that it is compared with; ``None`` for one that others are compared with.
        package: The distribution on PyPI that it comes from; ``None`` for this one.
    """

    summary: str
    make: Callable[[Work], Step]
    baseline: str | None = None
    package: str | None = None


def _training_step(loss: Callable[[], Tensor], parameters: Iterable[Tensor], work: Work) -> Step:
    """The same for all: forward under autocast, backward, one fused Adam."""
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with work.autocast():
            value = loss()
        value.backward()
        optimizer.step()

    return step


def _deterministic(work: Work) -> Step:
    (logmel, target), net = work.labelled(), work.network()
    return _training_step(lambda: F.binary_cross_entropy_with_logits(net(logmel), target), net.parameters(), work)


def bayesian(work: Work, estimator: str = "flipout") -> tuple[BayesianNet, Strategy]:
    """The model that our guides and Pyro's share: every weight under a fan-in prior."""
    strategy = Strategy(default=Settings.model_validate({"estimator": estimator}))
    model = BayesianNet.from_strategy(build(work.net, CLASSES), strategy, MultiLabel(), clips=DATA_SET)
    return model.to(work.device), strategy


def _ours(work: Work, *, estimator: str) -> Step:
    logmel, target = work.labelled()
    model, strategy = bayesian(work, estimator)
    guide = guide_from_strategy(model, strategy).to(work.device)
    # As Posterior.build does: the guide has its own copy.
    model.initial.clear()
    objective = MeanFieldELBO()(model, guide)
    objective.train()
    return _training_step(lambda: objective(logmel, target) / DATA_SET, objective.parameters(), work)


def _natural_gradient(work: Work) -> Step:
    logmel, target = work.labelled()
    model, strategy = bayesian(work, "weights")
    guide = guide_from_strategy(model, strategy).to(work.device)
    model.initial.clear()
    elbo = MeanFieldELBO()
    objective = elbo(model, guide)
    objective.train()
    # As a fit does: BatchNorm is Adam's, and the optimiser adds the gradient of the KL.
    natural = NaturalGradient(model, guide, clips=DATA_SET, adds_kl=True)
    elbo.without_kl = natural.without_kl
    rest = [each for each in objective.parameters() if each.requires_grad and id(each) not in natural.handles]
    adam = torch.optim.Adam(rest, lr=1e-4, fused=True)

    def step() -> None:
        for optimizer in (natural, adam):
            optimizer.zero_grad(set_to_none=True)
        with work.autocast():
            loss = objective(logmel, target) / DATA_SET
        loss.backward()
        natural.step(work.clips)
        adam.step()

    return step


def _pyro_guide(work: Work, *, guide_class: type[AutoNormal] | type[AutoDiagonalNormal]) -> Step:
    logmel, target = work.labelled()
    model, _ = bayesian(work)
    guide: AutoGuide = guide_class(model, init_loc_fn=init_to_value(values=model.initial), init_scale=0.01)
    # The guide makes its parameters in its first run, in eval mode so that BatchNorm does not move.
    model.eval()
    with torch.no_grad():
        guide(logmel, target)
    objective = TraceMeanField_ELBO()(model, guide)
    objective.train()
    return _training_step(lambda: objective(logmel, target) / DATA_SET, objective.parameters(), work)


def _bayesian_torch_net(work: Work, kind: str) -> nn.Module:
    from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn

    net = work.network()
    # The values of its own documentation.
    prior = {"prior_mu": 0.0, "prior_sigma": 1.0}
    posterior = {"posterior_mu_init": 0.0, "posterior_rho_init": -3.0}
    dnn_to_bnn(net, {**prior, **posterior, "type": kind, "moped_enable": False})
    # The new layers come on the CPU and channels first.
    return net.to(work.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _bayesian_torch(work: Work, *, kind: str) -> Step:
    from bayesian_torch.models.dnn_to_bnn import get_kl_loss

    (logmel, target), net = work.labelled(), _bayesian_torch_net(work, kind)

    def loss() -> Tensor:
        return F.binary_cross_entropy_with_logits(net(logmel), target) + get_kl_loss(net) / work.clips

    return _training_step(loss, net.parameters(), work)


def _ivon(work: Work) -> Step:
    from ivon import IVON

    (logmel, target), net = work.labelled(), work.network()
    # The learning rate of its own documentation; every other value is its default.
    optimizer = IVON(net.parameters(), lr=0.1, ess=DATA_SET)

    def step() -> None:
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad(set_to_none=True)
            with work.autocast():
                loss = F.binary_cross_entropy_with_logits(net(logmel), target)
            loss.backward()
        optimizer.step()

    return step


def _posteriors(work: Work) -> Step:
    with warnings.catch_warnings():
        # The newest tensordict warns of each of its states.
        warnings.simplefilter("ignore", FutureWarning)
        import posteriors
        import torchopt

    batch, net = work.labelled(), work.network()
    buffers = dict(net.named_buffers())

    def log_posterior(parameters: Mapping[str, Tensor], batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict]:
        logmel, target = batch
        # BatchNorm's statistics go in and out: torch.func forbids a function to change what it is not given.
        moving = {name: value.clone() for name, value in buffers.items()}
        with work.autocast():
            logits = functional_call(net, {**parameters, **moving}, (logmel,))
            fit = -F.binary_cross_entropy_with_logits(logits, target)
        return fit + posteriors.diag_normal_log_prob(parameters) / DATA_SET, moving

    transform = posteriors.vi.diag.build(
        log_posterior, torchopt.adam(lr=1e-4), temperature=1 / DATA_SET, init_log_sds=-3.0
    )
    state = transform.init({name: value.detach() for name, value in net.named_parameters()})

    def step() -> None:
        nonlocal state
        state, moved = transform.update(state, batch)
        for name, value in moved.items():
            buffers[name].copy_(value)

    return step


TRAIN = {
    "deterministic": Contender("the network with point weights", _deterministic),
    "weights": Contender("this package: one draw a batch", partial(_ours, estimator="weights"), "deterministic"),
    "mirrored": Contender(
        "this package: half the batch sees the mirrored draw", partial(_ours, estimator="mirrored"), "deterministic"
    ),
    "flipout": Contender(
        "this package: signs a clip and channel", partial(_ours, estimator="flipout"), "deterministic"
    ),
    "natural-gradient": Contender(
        "this package: one draw a batch, natural gradients in place of Adam", _natural_gradient, "deterministic"
    ),
    "bt-reparameterization": Contender(
        "bayesian-torch's Reparameterization layers: one draw a batch",
        partial(_bayesian_torch, kind="Reparameterization"),
        "deterministic",
        "bayesian-torch",
    ),
    "bt-flipout": Contender(
        "bayesian-torch's Flipout layers: signs a pixel",
        partial(_bayesian_torch, kind="Flipout"),
        "deterministic",
        "bayesian-torch",
    ),
    "auto-normal": Contender(
        "Pyro's AutoNormal and TraceMeanField_ELBO: one draw a batch",
        partial(_pyro_guide, guide_class=AutoNormal),
        "deterministic",
        "pyro-ppl",
    ),
    "auto-diagonal-normal": Contender(
        "Pyro's AutoDiagonalNormal and TraceMeanField_ELBO: one draw a batch",
        partial(_pyro_guide, guide_class=AutoDiagonalNormal),
        "deterministic",
        "pyro-ppl",
    ),
    "ivon": Contender(
        "IVON, a variational optimiser, on the network with point weights: one draw a batch",
        _ivon,
        "deterministic",
        "ivon-opt",
    ),
    "posteriors": Contender(
        "posteriors' vi.diag and torchopt's Adam: one draw a batch", _posteriors, "deterministic", "posteriors"
    ),
}
"""Training steps by name."""


def _passes(net: nn.Module, work: Work, passes: int) -> Step:
    """Probabilities of ``passes`` passes through ``net``, from waveforms."""
    waveforms, front_end = work.waveforms(), work.front_end()
    net.eval()

    def step() -> None:
        with torch.no_grad():
            logmel = front_end(waveforms)
            for _ in range(passes):
                with work.autocast():
                    logits = net(logmel)
                logits.float().sigmoid().cpu()

    return step


def deterministic_passes(work: Work, *, passes: int) -> Step:
    """Passes of the network with point weights, from waveforms to probabilities on the CPU."""
    return _passes(work.network(), work, passes)


def _bayesian_torch_draws(work: Work) -> Step:
    return _passes(_bayesian_torch_net(work, "Flipout"), work, FEW)


def posterior_of(work: Work, strategy: Strategy, clips: int | None = None) -> Posterior:
    """A posterior of the work's network that nothing was fitted to; ``clips`` as for ``Posterior.build``."""
    return Posterior.build(
        net=work.net,
        labels=tuple(str(label) for label in range(CLASSES)),
        task=Task.MULTI_LABEL,
        sample_rate=work.sample_rate,
        clip_seconds=work.seconds,
        strategy=strategy,
        clips=clips,
    )


def _posterior(work: Work, guide: str) -> Posterior:
    posterior = posterior_of(work, read_strategy(guide))
    posterior.model.to(work.device)
    posterior.guide.to(work.device)
    posterior.model.precision = Precision(work.precision)
    return posterior


def posterior_draws(work: Work, *, guide: str, draws: int) -> Step:
    """Draws of a posterior, from waveforms to probabilities on the CPU."""
    posterior, waveforms = _posterior(work, guide), work.waveforms()

    def step() -> None:
        for _ in posterior.draws(waveforms, draws, batch_size=work.clips):
            pass

    return step


def _moments(work: Work) -> Step:
    # Whatever the others compute in, moments have float32 only.
    exact = replace(work, precision=Precision.FLOAT32)
    posterior, waveforms = _posterior(exact, "flip"), work.waveforms()

    def step() -> None:
        posterior.moments(waveforms)

    return step


PREDICT = {
    "one-pass": Contender("the network with point weights, one pass", partial(deterministic_passes, passes=1)),
    f"{FEW}-passes": Contender(
        f"the network with point weights, {FEW} passes", partial(deterministic_passes, passes=FEW)
    ),
    "flip": Contender(
        f"this package: {FEW} draws of every weight", partial(posterior_draws, guide="flip", draws=FEW), f"{FEW}-passes"
    ),
    "bt-flipout": Contender(
        f"bayesian-torch's Flipout layers: {FEW} passes, a draw each",
        _bayesian_torch_draws,
        f"{FEW}-passes",
        "bayesian-torch",
    ),
    "det-flip": Contender(
        f"this package: {DRAWS} draws of the last layer",
        partial(posterior_draws, guide="det-flip", draws=DRAWS),
        "one-pass",
    ),
    "moments": Contender("this package: moments of every weight, no draws; float32", _moments, "one-pass"),
}
"""Predictions by name, from waveforms to probabilities."""
