"""Inside a network: which clips share a draw, and that whatever uses a weight uses the draw."""

import copy
import io
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.nn import functional as F

from bayes_panns.bayes import ESTIMATORS, BayesianNet, Estimator, FanIn, MeanField, OneOfK, sites
from bayes_panns.nets import build

FOR_CONVOLUTIONS = ("weights", "flipout", "mirrored")


def model_of(net):
    return BayesianNet(net, {name: FanIn()(site) for name, site in sites(net).items()}, OneOfK()).eval()


def run(model, guide, clips):
    """What the model makes of clips under one draw of the guide."""
    return poutine.replay(model, trace=poutine.trace(guide).get_trace())(clips)


def tagger(estimator):
    """The narrow network in eval mode, all its weights uncertain, and one clip six times over."""
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(1)
    net = build("resnet14-narrow", 3)
    for module in net.modules():
        # PANNs start the last BatchNorm of a block at 0, which would hide the block's weights.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    model = model_of(net)
    clips = torch.randn(1, 32, 64, generator=generator).expand(6, 32, 64).contiguous()
    return model, MeanField(model, init_scale=0.03, estimator=estimator), clips


@torch.no_grad()
@pytest.mark.parametrize("estimator", FOR_CONVOLUTIONS)
def test_clips_share_a_draw_with_whom_they_should(estimator):
    """weights: with all; mirrored: with their half of the batch; flipout: with none."""
    logits = run(*tagger(estimator))
    apart = (logits.unsqueeze(0) - logits.unsqueeze(1)).abs().amax(dim=2)
    group = {"weights": torch.zeros(6), "mirrored": torch.tensor([0, 0, 0, 1, 1, 1]), "flipout": torch.arange(6)}
    same = group[estimator].unsqueeze(0) == group[estimator].unsqueeze(1)
    assert apart[same].max() < 1e-4
    if estimator != "weights":
        assert apart[~same].min() > 0.02


@torch.no_grad()
@pytest.mark.slow
def test_every_clip_has_the_same_distribution_under_every_estimator():
    """Means to 5 standard errors, standard deviations to 30 %, about 4 of theirs."""
    torch.manual_seed(2)
    draws = {}
    for estimator in FOR_CONVOLUTIONS:
        model, guide, clips = tagger(estimator)
        draws[estimator] = torch.stack([run(model, guide, clips[:4]) for _ in range(100)])
    pooled = torch.stack(list(draws.values())).flatten(0, 2)
    for logits in draws.values():
        error = (logits.mean(dim=0) - pooled.mean(dim=0)) / (pooled.std(dim=0) / 100**0.5)
        assert error.abs().max() < 5
        ratio = logits.std(dim=0) / pooled.std(dim=0)
        assert ratio.min() > 0.7
        assert ratio.max() < 1.3


OPERATIONS = {
    "einsum": lambda w, x: torch.einsum("ni,oi->no", x, w),
    "matmul": lambda w, x: x @ w.t(),
    "sum": lambda w, x: w.sum() + 0 * x[:, :3],
    "stack": lambda w, x: x @ torch.stack([w, w])[1].t(),
    "index": lambda w, x: x[:, :3] * w[0, 0] + w[:, 1],
    "iteration": lambda w, x: x @ torch.stack(list(w)).t(),
    "where": lambda w, x: x @ torch.where(w > 0, w, 2 * w).t(),
    "written into another": lambda w, x: x @ torch.zeros(3, 4).index_copy(0, torch.arange(3), w).t(),
    "norm": lambda w, x: F.linear(x, w / w.norm() * 10),
    "conv_transpose1d": lambda w, x: F.conv_transpose1d(x[:, :3, None], w.unsqueeze(2))[:, :3, 0],
    "bilinear": lambda w, x: F.bilinear(x[:, :3], x, w.expand(3, 3, 4)),
    "embedding": lambda w, x: F.embedding(torch.arange(len(x)) % 3, w)[:, :3],
    "linear, by keyword": lambda w, x: F.linear(input=x, weight=w),
    "linear, as the input": lambda w, x: F.linear(w, x).t(),
    "linear, of a copy": lambda w, x: F.linear(x, w.clone()),
    "linear, of a single clip": lambda w, x: torch.stack([F.linear(clip, w) for clip in x]),
    "operator": lambda w, x: torch.ops.aten.mm(x, torch.ops.aten.t(w)),
}
"""Of a weight ``(3, 4)`` and clips ``(n, 4)``: what no estimator knows, or knows under other circumstances."""

WITHOUT_GRADIENT = {
    "numpy": lambda w, x: x @ torch.from_numpy(w.detach().numpy().T.copy()),
    "numbers": lambda w, x: x @ torch.tensor(w.tolist()).t(),
    "data": lambda w, x: x @ w.data.t(),
    "deepcopy": lambda w, x: x @ copy.deepcopy(w.detach()).t(),
    "pickle": lambda w, x: x @ pickle.loads(pickle.dumps(w.detach())).t(),
    "saved": lambda w, x: x @ saved_and_loaded(w.detach()).t(),
    "a buffer's state": lambda w, x: x @ kept_in_a_module(w).state_dict()["kept"].t(),
}


def saved_and_loaded(weight):
    file = io.BytesIO()
    torch.save(weight, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def kept_in_a_module(weight):
    module = nn.Module()
    module.register_buffer("kept", weight)
    return module


class Odd(nn.Module):
    """A network that uses a linear layer's weight in its own way; ``expected`` is the same of an ordinary tensor."""

    def __init__(self, operation):
        super().__init__()
        self.part, self.operation = nn.Linear(4, 3, bias=False), operation

    def forward(self, clips, augment=None):
        clips = clips.flatten(1)
        logits = self.operation(self.part.weight, clips)
        self.expected = self.operation(self.part.weight + 0, clips)
        return logits


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("operation", [*OPERATIONS, *WITHOUT_GRADIENT])
def test_what_no_estimator_knows_gets_the_draw(operation, estimator):
    """The mean is 0 and the standard deviation 1000: neither the mean nor an undrawn weight could pass for the draw."""
    net = Odd({**OPERATIONS, **WITHOUT_GRADIENT}[operation])
    model = model_of(net)
    guide = MeanField(model, init_scale=1000.0, estimator=estimator)
    guide.assign({"net.part.weight": (torch.zeros(3, 4), None)})
    logits = run(model, guide, torch.randn(5, 4, 1))
    assert type(logits) is torch.Tensor
    assert (logits.abs() > 1e-3).all()
    torch.testing.assert_close(logits, net.expected, rtol=1e-4, atol=0.01)
    if operation in OPERATIONS:
        logits.square().sum().backward()
        for parameter in guide.parameters():
            assert (parameter.grad.abs() > 0).any()


def drawn(estimator, loc, scale=1.0):
    with Estimator(estimator):
        return pyro.sample("w", dist.Normal(loc, torch.full_like(loc, scale)).to_event(loc.dim()))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_draw_is_the_same_whoever_asks(estimator):
    weight = drawn(estimator, torch.zeros(3, 4))
    other = drawn(estimator, torch.zeros(3, 4))
    total = weight.sum().item()
    assert weight.sum().item() == total
    assert sum(weight.flatten().tolist()) == pytest.approx(total, rel=1e-5)
    assert other.sum().item() != total


@pytest.mark.parametrize("first", ["the layer", "another operation"])
@pytest.mark.parametrize("estimator", FOR_CONVOLUTIONS)
@pytest.mark.parametrize("layer", [F.linear, F.conv1d, F.conv2d])
def test_a_layer_and_another_operation_see_one_draw_up_to_its_sign(layer, estimator, first):
    shape = (1,) * {F.linear: 2, F.conv1d: 3, F.conv2d: 4}[layer]
    weight = drawn(estimator, torch.full(shape, 5.0))
    if first == "another operation":
        noise = weight.sum().item() - 5
    outputs = layer(torch.ones(6, *shape[1:]), weight).flatten()
    if first == "the layer":
        noise = weight.sum().item() - 5
    torch.testing.assert_close((outputs - 5).abs(), torch.full((6,), abs(noise)), rtol=1e-4, atol=1e-5)
    if estimator != "flipout":
        sign = torch.ones(6) if estimator == "weights" else torch.tensor([1.0, 1, 1, -1, -1, -1])
        torch.testing.assert_close(outputs - 5, sign * noise, rtol=1e-4, atol=1e-5)
