"""Parameters of this package's models and guides stay local; the user's Pyro setting is theirs."""

import copy
import subprocess
import sys

import pyro
import pytest
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.nn import PyroModule, PyroParam
from pyro.optim import ClippedAdam
from torch import nn

from bayes_panns.bayes import (
    BayesianNet,
    ComposedGuide,
    CustomGuide,
    MeanField,
    OneOfK,
    Settings,
    Strategy,
    guide_from_strategy,
)
from bayes_panns.nets import build


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture
def batch():
    return torch.randn(2, 40, 64), torch.tensor([0, 1])


def model_of(posterior="normal"):
    strategy = Strategy(
        default=Settings(posterior="point"), rule=[{"match": "head.*", "posterior": posterior, "learn_prior": True}]
    )
    model = BayesianNet.from_strategy(build("resnet14-narrow", 2), strategy, OneOfK(), clips=2).eval()
    return model, guide_from_strategy(model, strategy)


def stored():
    return list(pyro.get_param_store().keys())


class Own(PyroModule):
    """A module of the user's."""

    def __init__(self):
        super().__init__()
        self.width = PyroParam(torch.tensor(1.0))

    def forward(self, *args):
        assert pyro.settings.get("module_local_params") is False
        return self.width


def test_importing_changes_no_setting():
    code = (
        "import pkgutil, importlib, pyro, bayes_panns\n"
        "for module in pkgutil.walk_packages(bayes_panns.__path__, 'bayes_panns.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert pyro.settings.get('module_local_params') is False\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("posterior", ["normal", "map", "rotated", "low-rank"])
def test_ours_are_local_and_the_users_own_is_global_in_one_process(batch, posterior):
    model, guide = model_of(posterior)
    Own()()
    svi = SVI(model, guide, ClippedAdam({"lr": 1e-2}), TraceMeanField_ELBO())
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    svi.step(*batch)
    assert stored() == ["width"]
    assert any(not torch.equal(before[name], value) for name, value in guide.state_dict().items())
    Own()()
    assert stored() == ["width"]
    assert pyro.settings.get("module_local_params") is False


def test_an_error_inside_restores_the_setting(batch):
    model, _ = model_of()
    with pytest.raises(RuntimeError):
        model(torch.randn(2, 40, 63))
    assert pyro.settings.get("module_local_params") is False
    model(*batch)


def test_pyros_own_guide_goes_by_the_users_setting(batch):
    model, _ = model_of()
    svi = SVI(model, AutoNormal(model, init_scale=0.01), ClippedAdam({"lr": 1e-2}), TraceMeanField_ELBO())
    losses = [svi.step(*batch) for _ in range(3)]
    assert all(torch.tensor(losses).isfinite())
    assert {name.split(".")[0] for name in stored()} == {"AutoNormal"}


def own_list(model):
    guide = AutoGuideList(model)
    guide.append(AutoNormal(model, init_scale=0.01))
    return guide


@pytest.mark.parametrize("make", [lambda model: AutoNormal(model, init_scale=0.01), own_list])
@pytest.mark.parametrize("used", [False, True])
def test_a_custom_guide_is_local_wherever_it_was_built(batch, make, used):
    model, _ = model_of()
    inner = make(model)
    if used:
        inner(*batch)
        pyro.clear_param_store()
    guide = ComposedGuide(model, [CustomGuide(model, inner)])
    guide(*batch)
    SVI(model, guide, ClippedAdam({"lr": 1e-2}), TraceMeanField_ELBO()).step(*batch)
    assert stored() == []
    assert list(guide.parameters())
    assert guide.median(*batch).keys() == model.sites.keys()


def test_a_copy_is_local_too(batch):
    model, _ = model_of()
    other = copy.deepcopy(model)
    other(*batch)
    assert stored() == []
    assert other._pyro_context is not model._pyro_context


def test_two_guides_with_one_name_do_not_collide(batch):
    guides = [MeanField(model_of()[0], init_scale=0.1) for _ in range(2)]
    with torch.no_grad():
        guides[0].loc("net.fc_audioset.bias").fill_(3.0)
    for guide in guides:
        guide(*batch)
    assert not torch.equal(guides[0].loc("net.fc_audioset.bias"), guides[1].loc("net.fc_audioset.bias"))


def test_a_module_of_ours_inside_the_users_goes_by_the_users_setting(batch):
    model, _ = model_of()
    outer = PyroModule[nn.Sequential](model)
    outer(batch[0])
    assert stored()
