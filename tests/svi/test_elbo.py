"""The ELBO is Pyro's, number for number; its parts are what they say; conjugate posteriors are recovered."""

from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import nn

from bayes_panns.bayes import (
    ESTIMATORS,
    BayesianNet,
    Estimator,
    Laplace,
    MeanField,
    Normal,
    OneOfK,
    Settings,
    Strategy,
    sites,
)
from bayes_panns.nets import build
from bayes_panns.svi import MeanFieldELBO


@pytest.fixture
def batch():
    return torch.randn(4, 40, 64), torch.tensor([0, 1, 2, 1])


def model_of(prior):
    strategy = Strategy(default=Settings(prior=prior, init_scale=0.2))
    return BayesianNet.from_strategy(build("resnet14-narrow", 3), strategy, OneOfK(), clips=20).eval()


@pytest.mark.parametrize("prior", ["fan-in", "normal", "laplace"])
@pytest.mark.parametrize("guide_of", [MeanField, AutoNormal, AutoDelta])
def test_it_is_pyros_elbo_with_its_gradient(prior, guide_of, batch):
    model = model_of(prior)
    guide = guide_of(model)
    guide(*batch)
    values, slopes = [], []
    for elbo in (TraceMeanField_ELBO(), MeanFieldELBO()):
        objective = elbo(model, guide)
        objective.zero_grad()
        torch.manual_seed(5)
        loss = objective(*batch)
        loss.backward()
        values.append(loss.item())
        slopes.append(torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None]))
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=1e-3)


class Regression(pyro.nn.PyroModule):
    """y = x w + noise of known size, w ~ Normal(0, 1): the posterior is Normal, its mean-field optimum known."""

    def __init__(self):
        super().__init__()
        self.initial = {"w": torch.zeros(3)}

    def prior(self):
        return dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1)

    def forward(self, x, y):
        w = pyro.sample("w", self.prior())
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


class LearnedPrior(Regression):
    """As Regression, with a prior whose width is a parameter."""

    def __init__(self):
        super().__init__()
        self.width = nn.Parameter(torch.tensor(0.7))

    def prior(self):
        return dist.Normal(torch.zeros(3), self.width.expand(3)).to_event(1)


class StudentPrior(Regression):
    """As Regression, with a prior whose KL has no closed form."""

    def prior(self):
        return dist.StudentT(4.0, torch.zeros(3), torch.ones(3)).to_event(1)


@pytest.mark.parametrize("model_of_rows", [LearnedPrior, StudentPrior])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_any_other_prior_takes_a_path_of_its_own_and_is_right(model_of_rows, estimator):
    """The pass over the weights knows constant Normals only; a learned prior must still get its gradient."""
    model, x, y = model_of_rows(), torch.randn(8, 3), torch.randn(8)
    guide = MeanField(model, init_scale=0.3, estimator=estimator)
    results = []
    for elbo in (TraceMeanField_ELBO(), MeanFieldELBO()):
        objective = elbo(model, guide)
        objective.zero_grad()
        torch.manual_seed(5)
        loss = objective(x, y)
        loss.backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in objective.parameters())])
    for ours, pyros in zip(*results, strict=True):
        torch.testing.assert_close(ours, pyros, rtol=1e-4, atol=1e-5)


def test_an_estimator_around_a_whole_step_changes_the_guides_draws_and_not_the_priors(batch):
    model = model_of("fan-in")
    losses = []
    for guide, outer in (
        (MeanField(model, estimator="mirrored"), None),
        (MeanField(model, estimator="flipout"), "mirrored"),
    ):
        torch.manual_seed(2)
        with Estimator(outer) if outer else nullcontext():
            guide_trace = poutine.trace(guide).get_trace(*batch)
            trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*batch)
            losses.append(MeanFieldELBO().loss(model, guide, *batch))
        prior = trace.nodes["net.fc1.weight"]["fn"].base_dist
        assert type(prior) is dist.Normal
    assert losses[0] == losses[1]


def test_half_precision_layers_leave_draw_and_kl_in_single(batch):
    model = model_of("fan-in")
    guide = MeanField(model)
    elbo, exact = MeanFieldELBO(), MeanFieldELBO()
    exact.loss(model, guide, *batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = elbo.differentiable_loss(model, guide, *batch)
    loss.backward()
    assert float(elbo.kl) == pytest.approx(float(exact.kl), rel=1e-6)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in guide.parameters())


def test_its_parts_add_up_and_the_kl_is_weighted(batch):
    model = model_of("fan-in")
    guide = MeanField(model)
    losses = {}
    for weight in (0.0, 1.0, 0.25):
        elbo = MeanFieldELBO(kl_weight=weight)
        torch.manual_seed(1)
        losses[weight] = elbo.differentiable_loss(model, guide, *batch).item()
        assert losses[weight] == pytest.approx(float(elbo.nll) + weight * float(elbo.kl), rel=1e-6)
    assert losses[0.25] == pytest.approx(0.75 * losses[0.0] + 0.25 * losses[1.0], rel=1e-5)


def test_the_nll_is_the_data_sets(batch):
    """20 clips, 4 in the batch: five times the batch's, and the KL once."""
    model = model_of("fan-in")
    elbo = MeanFieldELBO()
    guide = MeanField(model, init_scale=1e-9)
    elbo.loss(model, guide, *batch)
    logits = poutine.condition(model, data=guide.median())(batch[0])
    expected = 5 * nn.functional.cross_entropy(logits, batch[1], reduction="sum")
    assert float(elbo.nll) == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("prior", [Normal(0.7), Laplace(1.3)])
def test_the_closed_form_kl_is_the_monte_carlo_kl(prior):
    layer = nn.Linear(3, 2)
    model = BayesianNet(
        nn.Sequential(layer), {"0.weight": prior(sites(nn.Sequential(nn.Linear(3, 2)))["0.weight"])}, OneOfK()
    )
    guide = MeanField(model, init_scale=0.4)
    q = dist.Normal(guide.loc("net.0.weight"), guide.scale("net.0.weight")).to_event(2)
    p = model.net[0]._pyro_samples["weight"]
    closed = torch.distributions.kl_divergence(q, p).item()
    with torch.no_grad():
        draws = q.sample((40000,))
        difference = q.log_prob(draws) - p.log_prob(draws)
    assert abs(closed - difference.mean().item()) < 4 * difference.std().item() / 200


def test_a_guide_that_misses_a_site_is_told(batch):
    model = model_of("fan-in")
    guide = poutine.block(MeanField(model), hide=["net.fc1.bias"])
    with pytest.raises(ValueError, match=r"does not sample net\.fc1\.bias"):
        MeanFieldELBO().loss(model, guide, *batch)


@pytest.mark.parametrize("estimator", ["weights", "flipout", "mirrored", "local"])
def test_svi_recovers_a_conjugate_posterior(estimator):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator) @ torch.tensor([[1.0, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.7]])
    y = x @ torch.tensor([0.5, -1.0, 2.0]) + 0.5 * torch.randn(40, generator=generator)
    precision = torch.eye(3) + x.T @ x / 0.25
    mean = torch.linalg.solve(precision, x.T @ y / 0.25)
    # The mean-field optimum keeps the mean; its variances are the inverse diagonal of the precision.
    scale = precision.diagonal().rsqrt()

    torch.manual_seed(0)
    model = Regression()
    guide = MeanField(model, init_scale=0.3, estimator=estimator)
    objective = MeanFieldELBO(num_particles=4)(model, guide)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        optimizer.zero_grad()
        objective(x, y).backward()
        optimizer.step()
        schedule.step()
    assert ((guide.loc("w") - mean).abs() < 0.3 * scale).all()
    torch.testing.assert_close(guide.scale("w").detach(), scale, rtol=0.15, atol=0)
