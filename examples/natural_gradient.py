"""Widths that the clips decide, beside widths that stay where they started.

Fits the same Pyro model with the same guide twice: by pyro.infer.SVI with ClippedAdam, and by natural gradients. Each
is started from two widths a factor of 100 apart. The table says how much of that factor is left, and how many
parameters the clips determine.

    python examples/natural_gradient.py --steps 200
"""

import argparse
import math

import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.optim import ClippedAdam

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, FanIn, MeanField, OneOfK, sites
from bayes_panns.nets import build
from bayes_panns.soundscapes.scenes import DOWNSTREAM, soundscapes
from bayes_panns.svi import NaturalGradient

RATE, BATCH = 8000, 16


def clips(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    made = soundscapes(DOWNSTREAM, count, seconds=1.0, sample_rate=RATE, events=(1, 1), seed=seed)
    return LogMel(RATE)(torch.from_numpy(made.waveform)), torch.from_numpy(made.target.argmax(axis=1))


def model_and_guide(count: int, width: float) -> tuple[BayesianNet, MeanField]:
    torch.manual_seed(0)
    net = build("resnet14-narrow", classes=len(DOWNSTREAM))
    priors = {name: FanIn()(site) for name, site in sites(net).items()}
    model = BayesianNet(net, priors, OneOfK(), clips=count)
    return model, MeanField(model, init_scale=width, estimator="weights")


def by_adam(model: BayesianNet, guide: MeanField, logmel: torch.Tensor, label: torch.Tensor, steps: int) -> None:
    svi = SVI(model, guide, ClippedAdam({"lr": 1e-3}), TraceMeanField_ELBO())
    for _ in range(steps):
        index = torch.randint(0, len(logmel), (BATCH,))
        svi.step(logmel[index], label[index])


def by_natural_gradients(
    model: BayesianNet, guide: MeanField, logmel: torch.Tensor, label: torch.Tensor, steps: int
) -> None:
    loss = TraceMeanField_ELBO()(model, guide)
    natural = NaturalGradient(model, guide, clips=len(logmel))
    # BatchNorm has no prior: its parameters are left to Adam.
    rest = [each for each in loss.parameters() if each.requires_grad and id(each) not in natural.handles]
    adam = torch.optim.Adam(rest, lr=1e-3)
    for _ in range(steps):
        index = torch.randint(0, len(logmel), (BATCH,))
        adam.zero_grad()
        natural.zero_grad()
        (loss(logmel[index], label[index]) / len(logmel)).backward()
        natural.step(BATCH)
        adam.step()


def determined(model: BayesianNet, guide: MeanField) -> float:
    """Effective parameters: the sum over weights of 1 - s^2 / s0^2."""
    return sum(
        (1 - scale**2 / model.prior(site).variance).sum().item() for site, (_, scale) in guide.gaussians().items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    logmel, label = clips(arguments.clips, seed=0)

    print(
        "optimiser           widths left of a factor of 100   effective parameters, from the narrow and the wide start"
    )
    for name, fit in (("SVI, ClippedAdam", by_adam), ("natural gradients", by_natural_gradients)):
        logs, effective = [], []
        for width in (5e-4, 5e-2):
            model, guide = model_and_guide(arguments.clips, width)
            model.train()
            fit(model, guide, logmel, label, arguments.steps)
            logs.append(torch.cat([scale.log().flatten() for _, scale in guide.gaussians().values()]))
            effective.append(determined(model, guide))
        left = (logs[1] - logs[0]).mean().item() / math.log(100)
        print(f"{name:<19} {100 * left:>5.1f} %   {'':<22} {effective[0]:,.0f} and {effective[1]:,.0f}")


if __name__ == "__main__":
    main()
