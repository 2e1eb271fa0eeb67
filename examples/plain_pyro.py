"""The model and the guide are ordinary Pyro objects.

Fits synthetic soundscapes with Pyro alone: SVI, TraceMeanField_ELBO and ClippedAdam, first with this package's
mean-field guide and then with Pyro's own AutoNormal. Predicts with Predictive.

    python examples/plain_pyro.py --steps 60
"""

import argparse

import torch
from pyro.infer import SVI, Predictive, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value
from pyro.optim import ClippedAdam

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, FanIn, MeanField, OneOfK, sites
from bayes_panns.nets import build
from bayes_panns.soundscapes.scenes import DOWNSTREAM, soundscapes

RATE = 8000


def clips(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    made = soundscapes(DOWNSTREAM, count, seconds=1.0, sample_rate=RATE, events=(1, 1), seed=seed)
    return LogMel(RATE)(torch.from_numpy(made.waveform)), torch.from_numpy(made.target.argmax(axis=1))


def bayesian_net(count: int) -> BayesianNet:
    net = build("resnet14-narrow", classes=len(DOWNSTREAM))
    priors = {name: FanIn()(site) for name, site in sites(net).items()}
    return BayesianNet(net, priors, OneOfK(), clips=count)


def stock(model: BayesianNet) -> AutoNormal:
    return AutoNormal(model, init_loc_fn=init_to_value(values=model.initial), init_scale=0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--held-out", type=int, default=80)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    logmel, label = clips(arguments.clips, seed=0)
    held_logmel, held_label = clips(arguments.held_out, seed=1)

    for make_guide in (MeanField, stock):
        torch.manual_seed(0)
        model = bayesian_net(arguments.clips)
        guide = make_guide(model)
        svi = SVI(model, guide, ClippedAdam({"lr": 3e-3}), TraceMeanField_ELBO())
        model.train()
        for step in range(arguments.steps):
            index = torch.randint(0, len(logmel), (16,))
            loss = svi.step(logmel[index], label[index])
            if step % max(1, arguments.steps // 5) == 0:
                print(f"{type(guide).__name__:<12} step {step:>4}  ELBO {-loss:.4g} nats")
        model.eval()
        drawn = Predictive(model, guide=guide, num_samples=10, return_sites=("_RETURN",))(held_logmel)
        probability = drawn["_RETURN"].softmax(dim=-1)
        right = (probability.mean(dim=0).argmax(dim=1) == held_label).float().mean()
        spread = probability.var(dim=0, correction=0).sum(dim=1).mean()
        print(f"{type(guide).__name__:<12} held-out accuracy {right:.2f}, epistemic variance {spread:.4f}\n")


if __name__ == "__main__":
    main()
