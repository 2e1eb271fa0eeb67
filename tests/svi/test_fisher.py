"""Widths from the Fisher information: closed forms, and what a fit makes of them."""

import math

import pyro.distributions as dist
import pytest
import torch
from pydantic import ValidationError
from pyro import poutine
from torch import nn

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import (
    BayesianNet,
    ComposedGuide,
    Laplace,
    MeanField,
    MultiLabel,
    Normal,
    OneOfK,
    Settings,
    Strategy,
    guide_from_strategy,
    sites,
)
from bayes_panns.bayes.strategy import Rule
from bayes_panns.core.choices import Task
from bayes_panns.nets import build
from bayes_panns.svi import FitSettings, fisher, fisher_information, require_fisher, start_from_fisher
from bayes_panns.svi.fisher import random_score

WIDTH, LABELS = 5, 4
PRIOR = 0.5


class Tensors:
    """Clips in memory, without targets."""

    reader = None

    def __init__(self, values, *, embedded):
        self.values, self.embedded, self.asked = values, embedded, []

    def __len__(self):
        return len(self.values)

    def batch(self, index, device):
        self.asked += index.tolist()
        return self.values[index], None


def regression(likelihood, *, clips=60, prior=None):
    """Logistic regression on embeddings, and its clips."""
    net = build(f"embeddings-{WIDTH}", LABELS)
    nn.init.normal_(net.fc.weight)
    nn.init.normal_(net.fc.bias)
    priors = {name: (prior or Normal(PRIOR))(site) for name, site in sites(net).items()}
    model = BayesianNet(net, priors, likelihood, clips=clips)
    return model, MeanField(model), Tensors(torch.randn(clips, WIDTH), embedded=True)


def exact(guide, data, probability=torch.sigmoid):
    """The information of weight and bias: mean over clips of p (1 - p) x^2."""
    weight, bias = (guide.means()[f"net.fc.{name}"] for name in ("weight", "bias"))
    p = probability(data.values @ weight.T + bias)
    variance = p * (1 - p)
    return {"net.fc.weight": variance.T @ data.values.square() / len(data), "net.fc.bias": variance.mean(dim=0)}


class Poisson:
    """Counts: a likelihood that is neither one-of-K nor multi-label."""

    task = Task.MULTI_LABEL

    def __call__(self, logits, target=None):
        return dist.Poisson(logits.exp()).to_event(1)

    def probability(self, logits):
        return logits.exp()


@pytest.mark.parametrize(
    ("likelihood", "probability", "tolerance"),
    [
        # Of one clip a batch it has no noise.
        (MultiLabel(), torch.sigmoid, 1e-4),
        # Four standard errors of 2,000 squares.
        (OneOfK(), lambda logits: logits.softmax(dim=-1), 0.13),
    ],
)
def test_logistic_regression_has_its_exact_information(likelihood, probability, tolerance):
    model, guide, data = regression(likelihood, clips=2000)
    found = fisher_information(model, guide, data, guide.sites, batch_size=1, device="cpu")
    for site, value in exact(guide, data, probability).items():
        torch.testing.assert_close(found[site], value, rtol=tolerance, atol=0)


@pytest.mark.parametrize("batch_size", [3, 8, 20])
def test_the_size_of_a_batch_changes_noise_alone(batch_size):
    model, guide, data = regression(MultiLabel(), clips=2000)
    found = fisher_information(model, guide, data, guide.sites, batch_size=batch_size, device="cpu")
    value = exact(guide, data)
    ratios = torch.cat([(found[site] / value[site]).flatten() for site in found])
    # 100 squares or more: a standard error of 14 % for a weight, and of less for the mean of 24 weights.
    assert float(ratios.mean()) == pytest.approx(1, abs=0.12)
    assert float(ratios.std()) < 0.25


@pytest.mark.parametrize(
    ("likelihood", "information"),
    [
        (MultiLabel(), lambda logits: torch.diag_embed(logits.sigmoid() * (1 - logits.sigmoid()))),
        (
            OneOfK(),
            lambda logits: torch.diag_embed(p := logits.softmax(dim=-1)) - p[..., None] * p[..., None, :],
        ),
        (Poisson(), lambda logits: torch.diag_embed(logits.exp())),
    ],
)
def test_a_random_score_has_mean_0_and_the_information_as_covariance(likelihood, information):
    logits = torch.tensor([2.0, 0.0, -1.0, -3.0])
    draws = 200_000
    scores = random_score(likelihood, logits.expand(draws, -1))
    expected = information(logits)
    torch.testing.assert_close(scores.mean(dim=0), torch.zeros(4), rtol=0, atol=0.03)
    torch.testing.assert_close(scores.T @ scores / draws, expected, rtol=0.03, atol=0.02)


def test_rare_labels_are_not_missed():
    """Labels that the model draws once in a thousand clips have their exact information from 20 clips."""
    model, guide, data = regression(MultiLabel(), clips=20)
    with torch.no_grad():
        guide.loc("net.fc.bias").fill_(-7)
        guide.loc("net.fc.weight").mul_(0.01)
    found = fisher_information(model, guide, data, guide.sites, device="cpu")
    torch.testing.assert_close(found["net.fc.bias"], exact(guide, data)["net.fc.bias"])


@pytest.fixture
def network():
    """A small convolutional network with a variational backbone, its guide and spectrograms of noise."""
    strategy = Strategy(
        default=Settings(prior="normal"), rule=[Rule(match=["fc1.*", "resnet.layer1.*"], posterior="point")]
    )
    front_end = LogMel(8000)
    net = build("resnet14-narrow", 3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Those at the end of a residual block start at 0.
            nn.init.constant_(module.weight, 1.0)
    model = BayesianNet.from_strategy(net, strategy, OneOfK(), clips=12, front_end=front_end)
    guide = guide_from_strategy(model, strategy)
    return model, guide, Tensors(front_end(torch.randn(12, 3200)), embedded=False)


def slow(model, guide, data):
    """The same, label by label: sum over labels y of p(y | x) times the squared gradient of log p(y | x)."""
    model.eval()
    means = {site: value.clone().requires_grad_() for site, value in guide.means().items()}
    found = {site: torch.zeros_like(value) for site, value in means.items()}
    for index in range(len(data)):
        clip, _ = data.batch(torch.tensor([index]), "cpu")
        logs = poutine.condition(model, data=means)(clip).log_softmax(dim=-1)[0]
        for log in logs:
            gradients = torch.autograd.grad(log, list(means.values()), retain_graph=True)
            for site, gradient in zip(means, gradients, strict=True):
                found[site] += log.detach().exp() * gradient.square() / len(data)
    return {site: value.detach() for site, value in found.items()}


@pytest.mark.parametrize("batches", [12, 4])
def test_a_convolutional_network_has_the_mean_of_the_clips_squared_gradients(network, batches, monkeypatch):
    monkeypatch.setattr(fisher, "_LEAST_BATCHES", batches)
    model, guide, data = network
    chosen = ("net.conv_block1.conv1.weight", "net.resnet.layer3.0.conv1.weight", "net.fc_audioset.bias")
    passes = [fisher_information(model, guide, data, chosen, batch_size=3, device="cpu") for _ in range(240 // batches)]
    expected = slow(model, guide, data)
    for site in chosen:
        mean = torch.stack([each[site] for each in passes]).mean(dim=0)
        # 240 squares a weight: a standard error of some 9 %, which a layer's weights share in part.
        assert float(mean.sum()) == pytest.approx(float(expected[site].sum()), rel=0.3)
        # Channels that a ReLU silences have none.
        live = expected[site] > 0
        assert not mean[~live].any()
        assert (mean / expected[site])[live].log().square().mean().sqrt() < 0.4


@pytest.mark.parametrize("training", [True, False])
def test_widths_change_and_nothing_else(network, training):
    model, guide, data = network
    guide.freeze("conv_block1")
    model.train(training)
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in {**model.state_dict(), **guide.state_dict()}.items()}
    start_from_fisher(model, guide, data, clips=100, kl_weight=1.0, device="cpu")
    assert [module.training for module in model.modules()] == modes
    after = {**model.state_dict(), **guide.state_dict()}
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    widths = {name for name in after if "log_scales" in name and "conv_block1." not in name}
    assert changed == widths
    assert any("running_mean" in name for name in after)
    assert not any("fc1" in name for name in changed)


@pytest.mark.parametrize(("clips", "kl_weight"), [(60, 1.0), (10, 1.0), (60, 0.01)])
def test_the_precision_is_the_priors_plus_that_of_so_many_clips(clips, kl_weight):
    model, guide, data = regression(MultiLabel())
    start_from_fisher(model, guide, data, clips=clips, kl_weight=kl_weight, device="cpu")
    for site, value in exact(guide, data).items():
        precision = PRIOR**-2 + clips / kl_weight * value
        torch.testing.assert_close(guide.gaussians()[site][1], precision.rsqrt(), rtol=1e-4, atol=0)


def test_widths_are_set_where_means_alone_are_frozen():
    model, guide, data = regression(MultiLabel())
    guide.freeze_locs()
    start_from_fisher(model, guide, data, clips=60, kl_weight=1.0, device="cpu")
    expected = (PRIOR**-2 + 60 * exact(guide, data)["net.fc.bias"]).rsqrt()
    torch.testing.assert_close(guide.gaussians()["net.fc.bias"][1], expected)


def test_a_large_set_is_sampled_evenly(monkeypatch):
    monkeypatch.setattr(fisher, "CLIPS", 30)
    model, guide, data = regression(MultiLabel(), clips=301)
    fisher_information(model, guide, data, guide.sites, device="cpu")
    assert len(data.asked) == 30
    assert (data.asked[0], data.asked[-1]) == (0, 300)
    steps = [b - a for a, b in zip(data.asked, data.asked[1:], strict=False)]
    assert {10, 11} >= set(steps)


@pytest.mark.parametrize(("clips", "kl_weight"), [(60, 0.0), (60, -1.0), (60, math.inf), (60, math.nan), (0, 1.0)])
def test_numbers_out_of_range_are_refused(clips, kl_weight):
    model, guide, data = regression(MultiLabel())
    with pytest.raises(ValueError, match=r"need clips and a kl_weight above 0, not"):
        start_from_fisher(model, guide, data, clips=clips, kl_weight=kl_weight, device="cpu")
    assert not data.asked


def test_another_prior_and_a_guide_without_widths_are_refused():
    model, guide, data = regression(MultiLabel(), prior=Laplace(1.0))
    with pytest.raises(ValueError, match=r"the prior of fc.weight must be Normal, and it is Laplace"):
        start_from_fisher(model, guide, data, clips=60, kl_weight=1.0, device="cpu")
    model, guide, data = regression(MultiLabel())
    guide.freeze("fc")
    with pytest.raises(ValueError, match=r"no mean-field Normal part that is trained"):
        require_fisher(model, guide)
    empty = BayesianNet(build(f"embeddings-{WIDTH}", LABELS), {}, MultiLabel())
    with pytest.raises(ValueError, match=r"no mean-field Normal part that is trained"):
        require_fisher(empty, ComposedGuide(empty, []))


@pytest.mark.parametrize("optimizer", ["adam", "natural-gradient"])
def test_a_fit_that_starts_there_needs_a_weight_of_the_kl(optimizer):
    with pytest.raises(ValidationError, match=r"need.* a kl_weight above 0") as error:
        FitSettings(optimizer=optimizer, start="fisher", kl_weight=0.0)
    assert len(error.value.errors()) == 1
