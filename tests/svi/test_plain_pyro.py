"""Plain ``pyro.infer.SVI`` with a stock optimiser and our loop are the same fit, number for number."""

import json

import pyro
import pytest
import torch
from pyro.infer import SVI, TraceMeanField_ELBO

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import ESTIMATORS, BayesianNet, OneOfK, Rule, Settings, Strategy, guide_from_strategy
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.nets import build
from bayes_panns.svi import Features, Fit, FitSettings

CLIPS, RATE, STEPS = 24, 8000, 9


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    label = torch.eye(3, dtype=torch.bool)[torch.arange(CLIPS) % 3].numpy()
    path = tmp_path_factory.mktemp("stores") / "noise.h5"
    waveform = 0.2 * torch.randn(CLIPS, RATE // 2, generator=generator)
    write(path, waveform.numpy(), label, ("a", "b", "c"), Task.ONE_OF_K, RATE)
    return Features(ClipSet(path), LogMel(RATE), Task.ONE_OF_K)


def pair(strategy):
    torch.manual_seed(1)
    model = BayesianNet.from_strategy(build("resnet14-narrow", 3), strategy, OneOfK(), clips=CLIPS)
    return model, guide_from_strategy(model, strategy)


def strategy_of(estimator, prior):
    # Local reparameterization is for the last layer alone.
    if estimator == "local":
        return Strategy(default=Settings(prior=prior), rule=[Rule(match="fc_audioset.*", estimator="local")])
    return Strategy(default=Settings.model_validate({"prior": prior, "estimator": estimator}))


@pytest.mark.parametrize("prior", ["fan-in", "laplace"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_same_seed_gives_the_same_elbo_at_every_step(features, tmp_path, estimator, prior):
    strategy = strategy_of(estimator, prior)
    settings = FitSettings(
        epochs=3, batch_size=8, steps_per_epoch=1, learning_rate=1e-3, schedule="constant", spec_augment=False
    )
    job = Fit(*pair(strategy), features, settings, tmp_path)
    assert job.steps == STEPS
    job.run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    ours = [CLIPS * line["nll"] + line["kl"] for line in lines]

    model, guide = pair(strategy)
    # Its loss is the data set's, and ours a clip's share of it: but for its epsilon, Adam does not see the difference.
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), TraceMeanField_ELBO())
    model.train()
    pyros = []
    for epoch in range(3):
        order = torch.randperm(CLIPS, generator=torch.Generator().manual_seed(epoch))
        batches = [features.batch(index) for index in order.tensor_split(3)]
        if epoch == 0:
            torch.manual_seed(settings.seed)
        pyros += [svi.step(*batch) for batch in batches]
    assert ours[0] == pytest.approx(pyros[0], rel=1e-6)
    assert ours == pytest.approx(pyros, rel=1e-4)
