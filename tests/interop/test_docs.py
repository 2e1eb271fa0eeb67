"""The code that docs/published-checkpoints.md gives does what it says."""

import re
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch.distributions import Normal, kl_divergence

from bayes_panns.bayes import Settings, Strategy
from bayes_panns.clips import Task
from bayes_panns.interop import PUBLISHED
from bayes_panns.nets import NETS, NetworkEntry, build, cnn
from bayes_panns.posterior import Posterior
from bayes_panns.recipes import read_strategy
from bayes_panns.svi import MeanFieldELBO

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "published-checkpoints.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def code():
    names = {}
    exec(block_with("class MeanKL"), names)
    return names


def block_with(text):
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if text in each)
    return block


@pytest.fixture
def posterior():
    return Posterior.build(
        net="resnet14-narrow",
        labels=("a", "b"),
        task=Task.ONE_OF_K,
        sample_rate=8000,
        clip_seconds=0.5,
        strategy=Strategy(default=Settings(prior="normal", init_scale=0.3)),
    )


@pytest.mark.parametrize("elbo", [MeanFieldELBO, TraceMeanField_ELBO])
def test_the_mean_kl_is_that_of_the_published_code(code, posterior, elbo):
    model, guide = posterior.model.eval(), posterior.guide
    clips, target = torch.zeros(1, 4000), torch.zeros(1).long()
    expected = sum(
        kl_divergence(Normal(loc, scale), Normal(0.0, 1.0)).mean() for loc, scale in posterior.gaussians().values()
    )
    with code["MeanKL"]():
        torch.manual_seed(0)
        loss = elbo().loss(model, guide, clips, target)
    torch.manual_seed(0)
    whole = MeanFieldELBO()
    whole.loss(model, guide, clips, target)
    assert loss - float(whole.nll) == pytest.approx(float(expected), rel=1e-4)


def test_only_batchnorm_drifts(code, posterior):
    posterior.model.freeze("conv_block1")
    posterior.model.train()
    block = posterior.model.net.conv_block1
    assert not block.bn1.training
    code["drift"](posterior.model)
    assert block.bn1.training
    assert not block.conv1.training


def test_the_recipe_has_the_variational_layers_of_the_published_file():
    (recipe,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    strategy = Strategy.model_validate(tomllib.loads(recipe))
    with torch.device("meta"):
        resolved = strategy.resolve(build("resnet54", 527))
    variational = [site.name for site, settings in resolved.items() if settings.posterior == "normal"]
    assert len(variational) == 56
    assert all(settings.prior == "normal" for settings in resolved.values())
    assert not any(name.startswith("fc") for name in variational)
    sizes = [site.shape.numel() for site, settings in resolved.items() if settings.posterior == "normal"]
    assert (f"{min(sizes)}", f"{max(sizes):,}") == tuple(re.findall(r"1 / ([\d,]+)", PAGE)[:2])


def test_the_frame_wise_output_is_had_as_it_says(monkeypatch):
    name = "cnn14-decision-level-max"
    small = replace(cnn.ARCHITECTURES[name], widths=(2, 2, 2, 2, 2, 4))
    monkeypatch.setitem(NETS, name, NetworkEntry("narrow", partial(cnn.make, small)))
    posterior = Posterior.build(
        net=name,
        labels=("a", "b"),
        task=Task.MULTI_LABEL,
        sample_rate=8000,
        clip_seconds=1,
        strategy=read_strategy("flip"),
    )
    posterior.model.eval()
    names = {"posterior": posterior, "waveforms": 0.1 * torch.randn(3, 8000)}
    exec(block_with("framewise"), names)
    assert names["logits"].shape == (3, 101, 2)
    clip = next(posterior.logits(names["waveforms"], 0))
    torch.testing.assert_close(names["logits"].detach().amax(dim=1), clip)


def test_every_file_is_in_the_table():
    for name, known in PUBLISHED.items():
        assert f"| `{name}` | `{known.file}` |" in PAGE
