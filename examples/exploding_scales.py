"""Widths that Adam drives beyond all bounds, and the bound that holds them.

Fits one mean-field ResNet twice to tones and noise, with a KL that counts little and a large learning rate: widths walk
at random, and the noise of the widest weights hides the signal. The second fit holds each width within three times its
prior's, as every fit of bayes-panns does by default. A large rate shows in some hundred steps what a small one does in
many: what counts is the rate squared times the steps.

    python examples/exploding_scales.py --steps 300
"""

import argparse

import torch

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, FanIn, MeanField, OneOfK, sites
from bayes_panns.nets import build
from bayes_panns.svi import MeanFieldELBO, ScaleBounds

RATE, BATCH = 8000, 32


def clips(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mels of low tones, high tones and noise, a quarter of a second each; and which of them."""
    generator = torch.Generator().manual_seed(0)
    time, label = torch.arange(RATE // 4) / RATE, torch.arange(count) % 3
    pitch = torch.where(label == 0, 400.0, 2000.0)[:, None] * (0.9 + 0.2 * torch.rand(count, 1, generator=generator))
    noise = torch.randn(count, len(time), generator=generator)
    waveform = torch.where(label[:, None] == 2, noise, torch.sin(2 * torch.pi * pitch * time))
    return LogMel(RATE)(0.3 * waveform), label


def fit(count: int, steps: int, rate: float, bounds: tuple[float, ...]) -> list[tuple[float, float]]:
    """The mean NLL and the largest width, in units of its prior's, of each sixth of a fit."""
    torch.manual_seed(0)
    logmel, label = clips(count)
    net = build("resnet14-narrow", classes=3)
    priors = {name: FanIn()(site) for name, site in sites(net).items()}
    model = BayesianNet(net, priors, OneOfK(), clips=count)
    scales = {site: 0.1 / each.fan_in**0.5 for site, each in model.sites.items()}
    guide = MeanField(model, init_scale=scales, estimator="weights")
    elbo = MeanFieldELBO(kl_weight=1e-6)
    loss = elbo(model, guide)
    adam = torch.optim.Adam(loss.parameters(), lr=rate)
    guard = ScaleBounds(model, guide, bounds)
    guard.start()
    found, nll, every = [], 0.0, max(1, steps // 6)
    for step in range(1, steps + 1):
        index = torch.randint(0, count, (BATCH,))
        adam.zero_grad()
        (loss(logmel[index], label[index]) / count).backward()
        adam.step()
        guard.apply()
        nll += float(elbo.nll) / count / every
        if step % every == 0:
            widths = (
                (scale / model.prior(site).variance.sqrt()).max() for site, (_, scale) in guide.gaussians().items()
            )
            found.append((nll, max(widths).item()))
            nll = 0.0
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.3)
    arguments = parser.parse_args()
    free, held = (fit(arguments.clips, arguments.steps, arguments.rate, bounds) for bounds in ((), (1e-6, 3.0)))
    print("        no bounds                          within 3 times the prior's width")
    print("steps   NLL a clip   largest s / s0        NLL a clip   largest s / s0")
    every = max(1, arguments.steps // 6)
    for number, (one, other) in enumerate(zip(free, held, strict=True), start=1):
        print(f"{number * every:<7} {one[0]:<12.3g} {one[1]:<21.3g} {other[0]:<12.3g} {other[1]:.3g}")


if __name__ == "__main__":
    main()
