"""How far from the true posterior are the guides? NUTS on a small last layer, beside two guides.

A small network learns four kinds of sound and is then frozen. Its embeddings of a few new clips are the data. The last
layer is the model, an ordinary BayesianNet, and is small enough for Hamiltonian Monte Carlo to sample its posterior
(Hoffman and Gelman, 2014, "The No-U-Turn Sampler"). A mean-field and a low-rank guide are fitted to the same model,
and their predictions and the widths of their weights are compared with those samples.

    python examples/nuts_head.py --clips 60
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from pyro.infer import MCMC, NUTS, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, FanIn, MeanField, OneOfK, draw_weights, head_logits, sites
from bayes_panns.metrics import nll
from bayes_panns.nets.resnet import Architecture, BasicBlock, ResNet
from bayes_panns.predictions import decompose
from bayes_panns.soundscapes.scenes import DOWNSTREAM, soundscapes

RATE = 8000
KINDS = DOWNSTREAM[:4]
TINY = Architecture(BasicBlock, (1, 1, 1, 1), width=8, embedding=8, summary="the same blocks, an embedding of 8")


def clips(count: int, seed: int) -> tuple[Tensor, Tensor]:
    made = soundscapes(KINDS, count, seconds=0.5, sample_rate=RATE, events=(1, 1), seed=seed)
    return LogMel(RATE)(torch.from_numpy(made.waveform)), torch.from_numpy(made.target.argmax(axis=1))


def trained_net(count: int, epochs: int) -> ResNet:
    """A deterministic network, fitted to other clips."""
    logmel, label = clips(count, seed=0)
    net = ResNet(TINY, len(KINDS))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for index in torch.randperm(count).split(16):
            optimizer.zero_grad()
            F.cross_entropy(net(logmel[index]), label[index]).backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def sampled(model: BayesianNet, embedding: Tensor, label: Tensor, draws: int, warmup: int) -> dict[str, Tensor]:
    """Two chains of NUTS: weights by site name, ``(2, draws, *weight shape)``."""
    chains = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        sampler = MCMC(NUTS(model), num_samples=draws, warmup_steps=warmup, disable_progbar=True)
        sampler.run(embedding, label, embedded=True)
        chains.append(sampler.get_samples())
    return {name: torch.stack([chain[name] for chain in chains]) for name in chains[0]}


def fitted(
    model: BayesianNet, make_guide: Callable, embedding: Tensor, label: Tensor, steps: int, draws: int
) -> dict[str, Tensor]:
    """Draws from a guide after a fit with Pyro and torch alone: weights by site name, ``(draws, *weight shape)``."""
    torch.manual_seed(0)
    guide: nn.Module = make_guide(model)
    guide(embedding, label, embedded=True)  # Pyro's autoguides have no parameters before their first call
    objective = TraceMeanField_ELBO()(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(embedding, label, embedded=True).backward()
        optimizer.step()
        schedule.step()
    drawn = [draw_weights(guide, embedding, label) for _ in range(draws)]
    return {name: torch.stack([draw[name] for draw in drawn]) for name in drawn[0]}


def joined(weights: dict[str, Tensor]) -> Tensor:
    """The weights of each label with its bias at the end: ``(draws, K, embedding + 1)``."""
    return torch.cat([weights[f"net.{ResNet.head}.weight"], weights[f"net.{ResNet.head}.bias"][..., None]], dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=40, help="clips that the last layer is fitted to")
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--backbone-clips", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=10, help="of the backbone's fit")
    parser.add_argument("--steps", type=int, default=1500, help="of each guide's fit")
    parser.add_argument("--draws", type=int, default=500, help="of each of two chains")
    parser.add_argument("--warmup", type=int, default=200)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    net = trained_net(arguments.backbone_clips, arguments.epochs)
    head = {name: FanIn()(site) for name, site in sites(net).items() if name.startswith(f"{ResNet.head}.")}
    model = BayesianNet(net, head, OneOfK())
    model.eval()
    with torch.no_grad():
        (embedding, label), (held, held_label) = (
            (model.embed(logmel), label)
            for logmel, label in (clips(arguments.clips, seed=1), clips(arguments.held_out, seed=2))
        )
    target = F.one_hot(held_label, len(KINDS)).bool().numpy()

    posteriors, seconds = {}, {}
    started = time.monotonic()
    chains = sampled(model, embedding, label, arguments.draws, arguments.warmup)
    seconds["NUTS"] = time.monotonic() - started
    posteriors["NUTS"] = {name: values.flatten(0, 1) for name, values in chains.items()}
    for title, make_guide in (
        ("mean-field", lambda model: MeanField(model, init_scale=0.1)),
        ("low rank", lambda model: AutoLowRankMultivariateNormal(model, init_scale=0.1, rank=8)),
    ):
        started = time.monotonic()
        drawn = fitted(model, make_guide, embedding, label, arguments.steps, 2 * arguments.draws)
        posteriors[title], seconds[title] = drawn, time.monotonic() - started

    together = joined(chains)
    rhat, ess = split_gelman_rubin(together), effective_sample_size(together)
    print(f"{together[0, 0].numel()} weights, {arguments.clips} clips, {arguments.held_out} held out")
    print(f"NUTS, two chains of {arguments.draws}: r_hat at most {rhat.max():.3f}, ESS at least {ess.min():.0f}\n")

    probability = {
        name: torch.stack(
            [
                head_logits(model, {site: values[t] for site, values in drawn.items()}, held)
                for t in range(2 * arguments.draws)
            ]
        ).softmax(dim=-1)
        for name, drawn in posteriors.items()
    }
    exact = probability["NUTS"].mean(dim=0)
    halves = 0.5 * (probability["NUTS"].unflatten(0, (2, -1)).mean(dim=1).diff(dim=0)).abs().sum(dim=-1).mean()
    width = {name: joined(drawn).std(dim=0) for name, drawn in posteriors.items()}
    print(f"{'':<12}{'seconds':>8}{'NLL':>8}{'epistemic':>11}{'rank corr.':>12}{'distance':>10}{'sd / sd of NUTS':>24}")
    epistemic = {}
    for name, draws in probability.items():
        found = decompose(draws, "one-of-k")
        epistemic[name] = found.per_clip()["epistemic"]
        ratio = (width[name] / width["NUTS"]).flatten()
        low, middle, high = ratio.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
        print(
            f"{name:<12}{seconds[name]:>8.0f}{nll(found.probability, target, 'one-of-k'):>8.3f}"
            f"{epistemic[name].mean():>11.4f}{rank_correlation(epistemic[name], epistemic['NUTS']):>12.2f}"
            f"{0.5 * (draws.mean(dim=0) - exact).abs().sum(dim=-1).mean():>10.4f}"
            f"{f'{middle:.2f} ({low:.2f} to {high:.2f})':>24}"
        )
    print(f"\nDistance: total variation of a clip's mean probabilities to those of NUTS. Between chains: {halves:.4f}.")
    print("Rank corr.: of the clips' epistemic uncertainty with NUTS's. sd: median (5 % to 95 %) over the weights.\n")
    print("sd of each weight, mean-field divided by NUTS; one row for each label, the bias last:")
    for kind, row in zip(KINDS, (width["mean-field"] / width["NUTS"]).tolist(), strict=True):
        print(f"{kind:<12}" + "".join(f"{value:>6.2f}" for value in row))
    print()
    for name in ("mean-field", "low rank"):
        width_ratio = (width[name] / width["NUTS"]).median()
        print(
            f"{name}: the median weight is {width_ratio:.2f} times as wide as with NUTS, and predictions are "
            f"{epistemic[name].mean() / epistemic['NUTS'].mean():.2f} times as uncertain (epistemic variance)."
        )


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks."""
    return float(np.corrcoef(first.argsort().argsort(), second.argsort().argsort())[0, 1])


if __name__ == "__main__":
    main()
