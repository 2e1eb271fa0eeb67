import json

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import kl_divergence

from bayes_panns.bayes import BayesianNet, MeanField, Normal, OneOfK, draw_weights, logits_under, mean_weights, sites
from bayes_panns.nets import build


def make(scale=0.05, **options):
    net = build("resnet14-narrow", 3)
    priors = {name: Normal()(site) for name, site in sites(net).items()}
    model = BayesianNet(net, priors, OneOfK()).eval()
    return model, MeanField(model, init_scale=scale, **options)


def test_its_parameters_are_there_before_any_step():
    model, guide = make()
    assert len(list(guide.parameters())) == 2 * len(model.sites)
    _, other = make(scale=0.1)
    other.load_state_dict(guide.state_dict())
    for site in guide.sites:
        assert torch.equal(guide.loc(site), other.loc(site))
        assert torch.equal(guide.scale(site), other.scale(site))


def test_building_and_running_it_never_runs_the_model():
    model, guide = make()
    model.forward = None
    guide()
    assert model.net.bn0.num_batches_tracked == 0


def test_it_samples_normals_at_the_sites_with_their_locs_and_scales():
    _, guide = make(scale=0.3, estimator="weights")
    site = "net.fc1.bias"
    with torch.no_grad():
        draws = torch.stack([guide()[site] for _ in range(100)])
    assert draws.std(dim=0).mean() == pytest.approx(0.3, rel=0.03)
    assert (draws.mean(dim=0) - guide.loc(site)).abs().mean() < 0.06
    node = poutine.trace(guide).get_trace().nodes[site]
    assert isinstance(node["fn"].base_dist, dist.Normal)
    assert node["fn"].batch_shape == ()


def test_gradients_reach_loc_and_scale():
    _, guide = make()
    guide()["net.fc1.weight"].square().sum().backward()
    for tensor in (guide.loc("net.fc1.weight"), guide.log_scales.net.fc1.weight_unconstrained):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_median_and_quantiles_are_the_normals():
    _, guide = make(scale=0.2)
    site = "net.fc_audioset.weight"
    assert torch.equal(guide.median()[site], guide.loc(site))
    low, middle, high = guide.quantiles([0.05, 0.5, 0.95])[site]
    torch.testing.assert_close(middle, guide.loc(site).detach())
    torch.testing.assert_close(high - low, torch.full_like(high, 2 * 1.6449 * 0.2), rtol=1e-3, atol=0)


def test_assign_sets_locs_and_scales():
    _, guide = make()
    site = "net.fc1.bias"
    loc, scale = torch.randn(128), torch.rand(128) * 1e-3 + 1e-6
    guide.assign({site: (loc, scale)})
    torch.testing.assert_close(guide.loc(site).detach(), loc)
    torch.testing.assert_close(guide.scale(site).detach(), scale, rtol=1e-3, atol=0)
    guide.assign({site: (-loc, None)})
    torch.testing.assert_close(guide.scale(site).detach(), scale, rtol=1e-3, atol=0)


def test_a_draw_gives_every_clip_the_same_weights():
    model, guide = make(scale=0.05, estimator="flipout")
    clips = torch.randn(1, 40, 64).expand(3, 40, 64)
    logits = logits_under(model, draw_weights(guide), clips)
    torch.testing.assert_close(logits[0], logits[2])
    assert not torch.equal(logits, logits_under(model, draw_weights(guide), clips))
    at_mean = logits_under(model, mean_weights(guide), clips)
    torch.testing.assert_close(at_mean, logits_under(model, mean_weights(guide), clips))


@pytest.mark.long
@torch.no_grad()
def test_the_published_flipout_checkpoint_has_the_golden_kl_and_mean(reference):
    """loc = mu_kernel, scale = softplus(rho_kernel), prior Normal(0, 1); fc1 and the head are plain there."""
    formula, golden = reference
    shapes = json.loads(str(golden["flipout_keys"]))
    tensor = lambda name: torch.from_numpy(formula.tensor(name, shapes[name]))  # noqa: E731
    variational = [name.removesuffix(".mu_kernel") for name in shapes if name.endswith(".mu_kernel")]
    net = build("resnet54", 527)
    found = sites(net)
    priors = {f"{name}.weight": Normal(1.0)(found[f"{name}.weight"]) for name in variational}
    model = BayesianNet(net, priors, OneOfK()).eval()
    guide = MeanField(model)
    plain = {
        f"net.{name}": tensor(name)
        for name in shapes
        if not name.startswith(("spectrogram", "logmel")) and not name.endswith("_kernel")
    }
    model.load_state_dict(plain)
    softplus = torch.nn.functional.softplus
    guide.assign(
        {
            f"net.{name}.weight": (tensor(f"{name}.mu_kernel"), softplus(tensor(f"{name}.rho_kernel").double()).float())
            for name in variational
        }
    )
    kl = 0.0
    for name in guide.sites:
        prior = model.net.get_submodule(name.removeprefix("net.").removesuffix(".weight"))._pyro_samples["weight"]
        posterior = dist.Normal(guide.loc(name).double(), guide.scale(name).double()).to_event(4)
        kl += kl_divergence(posterior, prior).item()
    assert kl == pytest.approx(float(golden["kl"]), rel=1e-6)
    logits = logits_under(model, guide.median(), torch.from_numpy(golden["logmel"]))
    torch.testing.assert_close(logits, torch.from_numpy(golden["mean_logits"]), atol=1e-4, rtol=0)
