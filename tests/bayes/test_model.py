import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import ClippedAdam

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, FanIn, MeanField, MultiLabel, OneOfK, Settings, Strategy, sites
from bayes_panns.nets import build


def make(strategy=None, *, classes=3, likelihood=None, clips=None, front_end=None):
    net = build("resnet14-narrow", classes)
    return BayesianNet.from_strategy(
        net, strategy or Strategy(), likelihood or OneOfK(), clips=clips, front_end=front_end
    )


@pytest.fixture
def batch():
    return torch.randn(4, 40, 64), torch.tensor([0, 1, 2, 1])


def test_the_sites_are_panns_parameters_in_their_order(batch):
    model = make().eval()
    trace = poutine.trace(model).get_trace(*batch)
    expected = [f"net.{name}" for name in sites(build("resnet14-narrow", 3))]
    assert [name for name in trace.stochastic_nodes if name != "clips"] == expected
    assert trace.observation_nodes == ["label"]


def test_the_likelihood_is_scaled_to_the_data_set(batch):
    model = make(clips=100).eval()
    site = poutine.trace(model).get_trace(*batch).nodes["label"]
    assert site["scale"] == 25
    assert site["fn"].batch_shape == (4,)


def test_waveforms_and_log_mels_give_the_same_logits():
    front_end = LogMel(8000)
    model = make(front_end=front_end).eval()
    waveform = torch.randn(2, 8000)
    weights = MeanField(model).median()
    conditioned = poutine.condition(model, data=weights)
    torch.testing.assert_close(conditioned(waveform), conditioned(front_end(waveform)))
    with pytest.raises(ValueError, match="no front end"):
        make()(waveform)


@pytest.mark.parametrize("guide_of", [MeanField, lambda model: AutoNormal(model, init_scale=0.01)])
def test_plain_pyro_fits_it_with_our_guide_and_its_own(guide_of, batch):
    pyro.clear_param_store()
    strategy = Strategy(default=Settings(init_scale=0.05))
    model = make(strategy, clips=4)
    guide = guide_of(model)
    before = model.net.bn0.weight.detach().clone()
    svi = SVI(model, guide, ClippedAdam({"lr": 5e-3}), TraceMeanField_ELBO())
    losses = [svi.step(*batch) for _ in range(12)]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert not torch.equal(model.net.bn0.weight, before), "BatchNorm's weights are trained too"
    stored = list(pyro.get_param_store().keys())
    pyro.clear_param_store()
    assert not any(name.startswith(("BayesianNet", "MeanField", "net.")) for name in stored)
    assert bool(stored) is not isinstance(guide, MeanField), "Pyro's own guide keeps to the user's setting"


def test_predictive_draws_labels_and_logits(batch):
    model = make().eval()
    drawn = Predictive(model, guide=MeanField(model), num_samples=5, return_sites=("label", "_RETURN"))(batch[0])
    assert drawn["label"].shape == (5, 4)
    assert drawn["_RETURN"].shape == (5, 4, 3)
    assert drawn["_RETURN"].std(dim=0).min() > 0


def test_prior_predictive_needs_no_guide(batch):
    drawn = Predictive(make(likelihood=MultiLabel()).eval(), num_samples=3)(batch[0])
    assert drawn["label"].shape == (3, 4, 3)


def test_two_models_and_guides_in_one_process_do_not_collide(batch):
    first, second = make(), make()
    guides = [MeanField(first), MeanField(second)]
    for model, guide in zip((first, second), guides, strict=True):
        SVI(model, guide, ClippedAdam({"lr": 1e-2}), TraceMeanField_ELBO()).step(*batch)
    site = guides[0].sites[0]
    assert not torch.equal(guides[0].loc(site), guides[1].loc(site))


@pytest.mark.parametrize(("dropout", "on"), [("fit", False), ("always", True)])
def test_frozen_dropouts_rest_unless_they_are_always_on(dropout, on):
    model = BayesianNet(build("resnet14-narrow", 3), {}, OneOfK(), dropout=dropout)
    model.freeze("resnet", "dropout_clip")
    model.train()
    assert model.net.dropout_clip.training is on
    assert model.net.resnet.layer1[0].dropout.training is on
    assert not model.net.resnet.layer1[0].bn1.training


@pytest.mark.parametrize(("dropout", "fitting", "predicting"), [("off", 0, 0), ("fit", 1, 0), ("always", 1, 1)])
def test_dropout_is_on_when_the_strategy_says(dropout, fitting, predicting):
    model = make(Strategy(dropout=dropout, default=Settings(posterior="point")))
    drops = [module for module in model.net.modules() if isinstance(module, torch.nn.Dropout)]
    norms = [module for module in model.net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    model.train()
    assert {drop.training for drop in drops} == {bool(fitting)}
    assert {norm.training for norm in norms} == {True}
    model.eval()
    assert {drop.training for drop in drops} == {bool(predicting)}
    assert {norm.training for norm in norms} == {False}


def test_a_frozen_part_never_moves(batch):
    model = make(Strategy(dropout="fit"), clips=4)
    guide = MeanField(model)
    model.freeze("bn0", "conv_block1", "resnet")
    guide.freeze("bn0", "conv_block1", "resnet")
    state = {name: value.clone() for name, value in [*model.state_dict().items(), *guide.state_dict().items()]}
    elbo = TraceMeanField_ELBO()(model, guide).train()
    parameters = [parameter for parameter in elbo.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        elbo(*batch).backward()
        optimizer.step()
    moved = {
        name
        for name, value in [*model.state_dict().items(), *guide.state_dict().items()]
        if not torch.equal(value, state[name])
    }
    assert moved
    assert all("conv_block_after1" in name or "fc" in name for name in moved)
    with pytest.raises(AttributeError):
        model.freeze("nowhere")


def test_priors_follow_the_model_to_another_type(batch):
    model = make().to(torch.float64).eval()
    guide = MeanField(model)
    trace = poutine.trace(model).get_trace(batch[0].double(), batch[1])
    assert trace.nodes["net.fc1.weight"]["value"].dtype == torch.float64
    assert guide.loc("net.fc1.weight").dtype == torch.float64
    assert torch.isfinite(TraceMeanField_ELBO().differentiable_loss(model, guide, batch[0].double(), batch[1]))


def test_any_layer_of_any_net_can_be_bayesian():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3 * 2, 2)

        def forward(self, values, augment=None):
            return self.linear(values.flatten(1))

    net = Net()
    prior = {"linear.weight": FanIn()(sites(net)["linear.weight"])}
    model = BayesianNet(net, prior, OneOfK())
    trace = poutine.trace(model).get_trace(torch.randn(5, 3, 2))
    assert trace.stochastic_nodes == ["net.linear.weight", "clips", "label"]
    assert isinstance(trace.nodes["label"]["fn"], dist.Categorical)
    with pytest.raises(ValueError, match=r"linear.wheight: the network has no such weight; it has linear.weight"):
        BayesianNet(Net(), {"linear.wheight": prior["linear.weight"]}, OneOfK())


def test_mean_field_order_is_verified_without_a_warning(batch):
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TraceMeanField_ELBO().loss(model, MeanField(model), *batch)


def test_a_model_refuses_what_does_not_fit():
    net = build("resnet14-narrow", 3)
    found = sites(net)
    flat = {"fc1.bias": dist.Normal(torch.zeros(128), 1.0)}
    with pytest.raises(ValueError, match=r"fc1.bias: its event is of shape \(\) and its batch of shape \(128,\)"):
        BayesianNet(net, flat, OneOfK())
    with pytest.raises(ValueError, match=r"prior of fc1.bias: its event is of shape \(127,\)"):
        BayesianNet(net, {"fc1.bias": dist.Normal(torch.zeros(127), 1.0).to_event(1)}, OneOfK())
    with pytest.raises(ValueError, match=r"fc1\.weight has no prior whose width could be learned"):
        BayesianNet(net, {"fc1.bias": FanIn()(found["fc1.bias"])}, OneOfK(), learned=["fc1.weight"])
    with pytest.raises(ValueError, match="sometimes"):
        BayesianNet(net, {}, OneOfK(), dropout="sometimes")
    with pytest.raises(ValueError, match="does not say which layer is its last"):
        BayesianNet(torch.nn.Linear(2, 2), {}, OneOfK()).head_sites  # noqa: B018


def test_what_is_deterministic_is_all_but_the_sites():
    net = build("resnet14-narrow", 3)
    before = net.state_dict()
    model = make()
    assert set(model.deterministic()) == set(before) - {site.name for site in model.sites.values()}
    assert model.deterministic()["bn0.weight"].data_ptr() == model.net.bn0.weight.data_ptr()
