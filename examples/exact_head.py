"""The exact posterior of a last layer is underconfident where the classes separate; a power mends it. HMC shows both.

A last layer on fixed embeddings, with an isotropic Normal prior of width tau (in units of the embeddings' spread), is
small enough for Hamiltonian Monte Carlo (Neal, 2011, "MCMC using Hamiltonian dynamics", arXiv:1206.1901). Its samples
are set beside the mean-field posterior that `fit.features = "embeddings"` makes of the same model, each as it is and
with the power of the averaged predictive that inner folds choose, and beside logistic regression. The last layer has
K x E weights, but N clips tell something along N - 1 axes at most: along the others the weights keep the prior, which
needs no chain.

    python examples/exact_head.py
    python examples/exact_head.py --data stores/esc10.h5 --from runs/mn04 --fold 1 --share 0.1 --tau 0.3

Without --data it makes embeddings of three separate classes, whose true probabilities are known. A store has sound,
with --from for the posterior whose backbone embeds it, or embeddings, which need none.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from pyro.infer import HMC, MCMC
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from bayes_panns import load
from bayes_panns.bayes import OneOfK
from bayes_panns.clips import ClipSet
from bayes_panns.clips.splits import recording_folds
from bayes_panns.core.choices import Holds, Task
from bayes_panns.metrics import apply_power, ece, fit_power, nll, power_losses
from bayes_panns.predictions import decompose, embed_clips
from bayes_panns.svi.last_layer import HeadPosterior, choose_head, find_axes, infer_head

BIAS_SCALE = 10.0
"""The standard deviation of the bias under its prior, as in guides/rotated-head.toml."""

NOISES = 4
"""How many draws from the prior outside the clips' axes are added to each draw of the weights along them."""

TRAJECTORY = 2.0
"""In units of the mean-field posterior's width. A Normal of that width turns around in pi / 2."""

SMOOTHING = 0.3
PENALTIES = 10.0 ** np.arange(-3, 4.5, 0.5)
"""The inverse penalties C of logistic regression to choose from."""


@dataclass(frozen=True)
class Data:
    """Clips to fit and clips held out: embeddings ``(N, E)`` and labels ``(N,)``.

    ``folds`` are the inner folds of the clips to fit, and ``recordings`` says which recording each is of; ``truth`` are
    the true probabilities ``(N, K)`` of the clips held out, where they are known.
    """

    embedding: Tensor
    label: Tensor
    folds: NDArray[np.integer]
    recordings: NDArray[np.integer]
    held: Tensor
    held_label: Tensor
    labels: int
    truth: Tensor | None = None

    def part(self, fold: int) -> "Data":
        """The clips outside an inner fold, with those in it held out."""
        out = torch.from_numpy(self.folds == fold)
        inside = ~out
        rest = self.folds[inside.numpy()], self.recordings[inside.numpy()]
        clips = self.embedding[inside], self.label[inside], *rest, self.embedding[out], self.label[out]
        return Data(*clips, self.labels)


def separate_classes(clips: int, held_out: int, size: int = 60, labels: int = 3, distance: float = 4.0) -> Data:
    """Normal classes of width 1, their means ``distance`` from the origin along axes of their own."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(clips + held_out) % labels
    centre = distance * torch.eye(labels, size)
    x = centre[label] + torch.randn(len(label), size, generator=generator)
    truth = (-0.5 * torch.cdist(x, centre).square()).softmax(dim=1)
    recordings = np.arange(clips)
    folds = recording_folds(recordings, label[:clips].numpy(), 5, 0)
    return Data(x[:clips], label[:clips], folds, recordings, x[clips:], label[clips:], labels, truth[clips:])


def stored(data: Sequence[str], upstream: str | None, fold: int, share: float) -> Data:
    """The clips of stores: those of ``fold`` are held out."""
    clips = ClipSet(list(data))
    if clips.task is not Task.ONE_OF_K:
        raise SystemExit(f"{data[0]}: its clips have several labels each; this example is for one label a clip")
    if clips.folds is None:
        raise SystemExit(f"{data[0]}: has no folds, so none can be held out")
    fitted = clips.select(folds=sorted({*clips.folds.tolist()} - {fold})).sample(share, seed=0)
    held = clips.select(folds=[fold])

    def embedded(some: ClipSet) -> Tensor:
        if some.holds == Holds.EMBEDDINGS:
            return torch.from_numpy(some.embedding(np.arange(len(some))))
        if upstream is None:
            raise SystemExit(f"{data[0]}: holds sound; name the posterior that embeds it with --from")
        return torch.from_numpy(embed_clips(load(upstream), some).embedding)

    label, held_label = (torch.from_numpy(some.target().argmax(axis=1)) for some in (fitted, held))
    folds, labels = fitted.recording_folds(5, 0), len(clips.labels)
    return Data(embedded(fitted), label, folds, fitted.recordings, embedded(held), held_label, labels)


def mean_field(data: Data, tau: float) -> HeadPosterior:
    """The natural-gradient fit of the mean-field posterior at ``kl_weight`` 1."""
    axes, *start = find_axes(data.embedding[:, None], data.label, data.labels, OneOfK())
    return infer_head(
        data.embedding[:, None], data.label, OneOfK(), axes, [tau], [1.0],
        bias_prior_scale=BIAS_SCALE, start=(start[0], start[1]),
    )  # fmt: skip


class LastLayer:
    """The exact model, along the axes of a mean-field posterior and in units of its widths.

    The prior is isotropic, so along turned axes it is the same. The units change the prior's density and nothing else;
    the posterior is then nearly a standard Normal, and HMC needs no mass matrix.
    """

    def __init__(self, near: HeadPosterior):
        self.axes, self.tau = near.axes, near.prior_scale[0]
        self.left = near.axes.left.float()
        self.loc, self.scale = near.loc[0], near.scale[0]
        self.bias_loc, self.bias_scale = near.bias_loc[0], near.bias_scale[0]

    def __call__(self, inputs: Tensor, label: Tensor) -> None:
        """The Pyro model; ``inputs`` are ``(N, R)``."""
        weight_prior = dist.Normal(-self.loc / self.scale, self.tau / self.scale).to_event(2)
        bias_prior = dist.Normal(-self.bias_loc / self.bias_scale, BIAS_SCALE / self.bias_scale).to_event(1)
        weight, bias = pyro.sample("weight", weight_prior), pyro.sample("bias", bias_prior)
        with pyro.plate("clips", len(inputs)):
            pyro.sample("label", dist.Categorical(logits=self.logits(inputs, weight, bias)), obs=label)

    def logits(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Logits of ``inputs`` ``(N, R)`` under weights ``(..., K, R)`` and biases ``(..., K)``: ``(..., N, K)``."""
        along = inputs @ (self.loc + self.scale * weight).mT + (self.bias_loc + self.bias_scale * bias)[..., None, :]
        return along @ self.left.T

    def chains(self, data: Data, draws: int, warmup: int, chains: int) -> dict[str, Tensor]:
        """Samples by site, ``(chains, draws, *shape)``; each chain starts at a draw from the mean-field posterior."""
        found = []
        for seed in range(chains):
            pyro.set_rng_seed(seed)
            start = {"weight": torch.randn_like(self.loc), "bias": torch.randn_like(self.bias_loc)}
            kernel = HMC(
                self, step_size=0.3, trajectory_length=TRAJECTORY, adapt_mass_matrix=False,
                jit_compile=True, ignore_jit_warnings=True,
            )  # fmt: skip
            sampler = MCMC(kernel, num_samples=draws, warmup_steps=warmup, initial_params=start, disable_progbar=True)
            sampler.run(self.axes.inputs(data.embedding), data.label)
            found.append(sampler.get_samples())
        return {site: torch.stack([chain[site] for chain in found]) for site in found[0]}

    @torch.no_grad()
    def predicted(self, samples: dict[str, Tensor], embedding: Tensor) -> Tensor:
        """Logits of embeddings ``(N, E)``: ``(..., NOISES * draws, N, K)``, several with the same weights in a row."""
        logits = self.logits(self.axes.inputs(embedding), samples["weight"], samples["bias"])
        # Outside the clips' axes the weights are the prior's.
        logits = logits.repeat_interleave(NOISES, dim=-3)
        outside = self.tau * self.axes.outside(embedding).sqrt()
        return logits + outside[:, None] * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def approximated(self, embedding: Tensor, draws: int) -> Tensor:
        """The same under the mean-field posterior, whose draws are standard Normals in these units."""
        torch.manual_seed(0)
        samples = {
            "weight": torch.randn(draws, *self.loc.shape),
            "bias": torch.randn(draws, len(self.bias_loc)),
        }
        return self.predicted(samples, embedding)


def own_power(data: Data, tau: float, draws: int, warmup: int) -> float:
    """The power of the exact posterior, by inner folds, one chain for each; 1 if it does not lower their NLL."""
    p, hot = np.zeros((len(data.label), data.labels)), one_hot(data.label, data.labels)
    scored = np.ones(len(p), dtype=bool)
    for fold in np.unique(data.folds):
        part = data.part(fold)
        layer = LastLayer(mean_field(part, tau))
        logits = layer.predicted(layer.chains(part, draws, warmup, chains=1), part.held)
        p[data.folds == fold] = logits.softmax(dim=-1).mean(dim=(0, 1)).numpy()
        # A label that the fold's fit has not seen says nothing about the power.
        scored[data.folds == fold] = torch.isin(part.held_label, part.label).numpy()
    # As choose_head does: powers are judged on folds that they were not fitted to.
    p, hot, folds, losses = p[scored], hot[scored], data.folds[scored], 0.0
    for fold in np.unique(folds):
        others = folds != fold
        power = fit_power(p[others], hot[others], "one-of-k", smoothing=SMOOTHING)
        losses += power_losses(p[~others], hot[~others], power, "one-of-k").sum()
    if losses >= power_losses(p, hot, 1.0, "one-of-k").sum():
        return 1.0
    return float(fit_power(p, hot, "one-of-k", smoothing=SMOOTHING))


def logistic_regression(data: Data) -> tuple[NDArray[np.float64], float]:
    """Probabilities of the clips held out, and the C that the inner folds choose."""

    def fitted(part: Data, penalty: float) -> NDArray[np.float64]:
        centre, spread = part.embedding.mean(dim=0), part.embedding.var(dim=0, correction=0).mean().sqrt()
        model = LogisticRegression(C=penalty, max_iter=5000)
        model.fit(((part.embedding - centre) / spread).numpy(), part.label.numpy())
        p = np.full((len(part.held), part.labels), 1e-12)
        p[:, model.classes_] = model.predict_proba(((part.held - centre) / spread).numpy())
        return p

    parts = [data.part(fold) for fold in np.unique(data.folds)]
    losses = [
        sum(
            power_losses(fitted(part, penalty), one_hot(part.held_label, data.labels), 1.0, "one-of-k").sum()
            for part in parts
        )
        for penalty in PENALTIES
    ]
    penalty = float(PENALTIES[int(np.argmin(losses))])
    return fitted(data, penalty), penalty


def one_hot(label: Tensor, labels: int) -> NDArray[np.bool_]:
    return np.eye(labels, dtype=bool)[label.numpy()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", metavar="STORE", help="clips with one label each, and with folds")
    parser.add_argument("--from", dest="upstream", metavar="POSTERIOR", help="what embeds them, if they are sound")
    parser.add_argument("--fold", type=int, default=1, help="held out")
    parser.add_argument("--share", type=float, default=1.0, help="of the other folds' clips that are fitted")
    parser.add_argument("--tau", type=float, default=0.3, help="the prior's width, in units of the embeddings' spread")
    parser.add_argument("--clips", type=int, default=60, help="without --data: how many are fitted")
    parser.add_argument("--held-out", type=int, default=2000, help="without --data: how many are held out")
    parser.add_argument("--draws", type=int, default=500, help="of each of two chains")
    parser.add_argument("--warmup", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.data:
        data = stored(arguments.data, arguments.upstream, arguments.fold, arguments.share)
    else:
        data = separate_classes(arguments.clips, arguments.held_out)
    truth, tau = one_hot(data.held_label, data.labels), arguments.tau

    seconds = {}
    started = time.monotonic()
    near = mean_field(data, tau)
    seconds["mean-field"] = time.monotonic() - started
    layer = LastLayer(near)
    started = time.monotonic()
    samples = layer.chains(data, arguments.draws, arguments.warmup, chains=2)
    seconds["exact"] = time.monotonic() - started
    logits = layer.predicted(samples, data.held)
    draws = {
        "exact": logits.flatten(0, 1).softmax(dim=-1),
        "mean-field": layer.approximated(data.held, 2 * arguments.draws).softmax(dim=-1),
    }

    size, rank = near.axes.right.shape
    print(f"{len(data.label)} clips, {len(data.held)} held out, {data.labels} labels, embeddings of {size}")
    print(f"prior width {tau:g}; {data.labels} x ({rank} + 1) weights are sampled\n")
    # Without the prior outside, which no chain samples. A shift of all logits of a clip changes no probability.
    shown = layer.logits(near.axes.inputs(data.held[:50]), samples["weight"], samples["bias"])
    shown = shown - shown.mean(dim=-1, keepdim=True)
    rhat, ess = split_gelman_rubin(shown), effective_sample_size(shown)
    print(
        f"HMC, two chains of {arguments.draws}, {seconds['exact']:.1f} s. Logits of {shown.shape[2]} held-out "
        f"clips: r_hat at most {rhat.max():.3f}; ESS at least {ess.min():.0f}, median {ess.median():.0f}"
    )
    if rhat.max() > 1.05:
        print("The chains have not met: raise --warmup and --draws.")

    started = time.monotonic()
    choice = choose_head(
        data.embedding[:, None], data.label, data.labels, OneOfK(), data.folds, data.recordings,
        prior_scales=[tau], kl_weights=[1.0], smoothing=SMOOTHING, bias_prior_scale=BIAS_SCALE, steps=100,
    )  # fmt: skip
    seconds["mean-field, power"] = time.monotonic() - started
    started = time.monotonic()
    powers = {
        "exact": own_power(data, tau, arguments.draws, arguments.warmup),
        "mean-field": 1.0 if choice is None else choice.power[0],
    }
    seconds["exact, power"] = time.monotonic() - started

    print(f"\n{'':<24}{'power':>8}{'NLL':>9}{'ECE':>8}{'mutual information':>20}{'seconds':>9}")

    def row(name: str, p: NDArray[np.floating], power: float | None, information: float | None) -> None:
        print(
            f"{name:<24}{'' if power is None else f'{power:.2f}':>8}{nll(p, truth, 'one-of-k'):>9.4f}"
            f"{ece(p, truth, 'one-of-k'):>8.4f}{'' if information is None else f'{information:.4f}':>20}"
            f"{'' if name not in seconds else f'{seconds[name]:.1f}':>9}"
        )

    for name, each in draws.items():
        found = decompose(each, "one-of-k")
        information = float(found.mutual_information.mean())
        row(name, found.probability, None, information)
        row(f"{name}, power", apply_power(found.probability, powers[name], "one-of-k"), powers[name], information)
    p, penalty = logistic_regression(data)
    row("logistic regression", p, None, None)
    if data.truth is not None:
        row("the true probabilities", data.truth.double().numpy(), None, None)
    distance = 0.5 * (draws["exact"].mean(dim=0) - draws["mean-field"].mean(dim=0)).abs().sum(dim=-1)
    halves = 0.5 * logits.softmax(dim=-1).mean(dim=1).diff(dim=0).abs().sum(dim=-1)
    print(
        f"\nTotal variation of a clip's probabilities, mean-field to exact: mean {distance.mean():.4f}, most "
        f"{distance.max():.4f}; between the two chains: {halves.mean():.4f}, {halves.max():.4f}."
    )
    print(f"The powers and the C of logistic regression, {penalty:.3g}, are chosen by {choice.folds} inner folds.")
    print("Mutual information, in nats, is that of the draws, which a power does not change.")


if __name__ == "__main__":
    main()
