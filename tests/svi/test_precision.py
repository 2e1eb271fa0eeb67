import pytest
import torch

from bayes_panns.bayes import BayesianNet, OneOfK, Settings, Strategy, guide_from_strategy
from bayes_panns.bayes.strategy import Rule
from bayes_panns.core.choices import Precision
from bayes_panns.nets import build
from bayes_panns.svi import MeanFieldELBO
from tests.svi.test_fit import RATE, job, metrics, same, state, store  # noqa: F401

LOCAL = Strategy(default=Settings(posterior="point"), rule=[Rule(match="fc*", posterior="normal", estimator="local")])
STRATEGIES = {
    **{each: Strategy(default=Settings(estimator=each)) for each in ("weights", "flipout", "mirrored")},
    "local": LOCAL,
}


def objective(net, strategy):
    torch.manual_seed(0)
    model = BayesianNet.from_strategy(build(net, 3), strategy, OneOfK(), clips=24)
    guide = guide_from_strategy(model, strategy)
    model.train()
    return model, guide


def step(model, guide, precision, seed=1):
    """KL, and the gradients of the NLL, of one step from the same random state."""
    elbo = MeanFieldELBO(kl_weight=0.0)
    torch.manual_seed(seed)
    features, target = torch.randn(8, 64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    parameters = [each for each in (*model.parameters(), *guide.parameters()) if each.requires_grad]
    with model.computing_in(precision):
        loss = elbo(model, guide)(features, target)
    return elbo.kl, torch.cat([each.flatten() for each in torch.autograd.grad(loss, parameters)])


@pytest.mark.parametrize("estimator", STRATEGIES)
def test_layers_compute_in_bfloat16_and_nothing_else_does(estimator):
    model, guide = objective("resnet14-narrow", STRATEGIES[estimator])
    outputs = {}
    for name, module in model.net.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
    kl, gradient = step(model, guide, "bf16")
    # The spectrogram is normalised before the first layer that computes in bfloat16.
    types = {name: output.dtype for name, output in outputs.items() if name != "bn0"}
    assert set(types.values()) == {torch.bfloat16}
    maps = [output for output in outputs.values() if output.dim() == 4]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)
    kept = (*model.parameters(), *guide.parameters(), *model.buffers(), kl, gradient)
    assert {each.dtype for each in kept if each.is_floating_point()} == {torch.float32}
    assert model.precision == Precision.FLOAT32


@pytest.mark.parametrize("estimator", STRATEGIES)
def test_the_kl_is_that_of_float32_and_the_gradient_near_it(estimator):
    model, guide = objective("resnet14-narrow", STRATEGIES[estimator])
    kl, gradient = step(model, guide, "float32")
    half_kl, half = step(model, guide, "bf16")
    _, other = step(model, guide, "float32", seed=2)
    assert torch.equal(kl, half_kl)
    # bfloat16 has 8 bits, which some 20 layers round to, forward and backward.
    assert not torch.equal(gradient, half)
    assert (half - gradient).norm() < 0.25 * gradient.norm()
    assert half.norm().item() == pytest.approx(gradient.norm().item(), rel=0.03)
    if estimator != "local":
        # Small beside what one draw differs from another.
        assert (half - gradient).norm() < 0.25 * (other - gradient).norm()


@pytest.mark.long
@pytest.mark.parametrize("estimator", ["weights", "flipout", "mirrored"])
def test_gradients_vary_as_those_of_float32(estimator):
    model, guide = objective("resnet14-narrow", STRATEGIES[estimator])
    steps = {each: torch.stack([step(model, guide, each, seed)[1] for seed in range(24)]) for each in Precision}
    full, half = steps[Precision.FLOAT32], steps[Precision.BF16]
    assert half.std(dim=0).norm().item() == pytest.approx(full.std(dim=0).norm().item(), rel=0.01)
    error = full.std(dim=0).norm() / 24**0.5
    assert (half.mean(dim=0) - full.mean(dim=0)).norm() < 0.5 * error


def test_a_fit_in_bfloat16_learns(store, tmp_path):  # noqa: F811
    options = {"epochs": 2, "learning_rate": 5e-3, "kl_weight": 1e-4, "precision": "bf16", "validation": True}
    whole = job(store, tmp_path / "whole", **options)
    assert whole.run()
    lines = metrics(tmp_path / "whole")
    assert lines[-1]["nll"] < 0.8 * lines[0]["nll"]
    assert {each.dtype for each in state(whole).values() if each.is_floating_point()} == {torch.float32}

    plain = job(store, tmp_path / "plain", **{**options, "precision": "float32"})
    plain.run()
    assert not same(state(whole), state(plain))
    assert metrics(tmp_path / "plain")[0]["nll"] == pytest.approx(lines[0]["nll"], rel=0.2)
