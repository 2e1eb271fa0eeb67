import pyro
import pytest
import torch

from bayes_panns.audio.augment import Mixup, SpecAugment
from bayes_panns.bayes import BayesianNet, OneOfK, Settings, Strategy, guide_from_strategy
from bayes_panns.bayes.strategy import Rule
from bayes_panns.nets import build
from bayes_panns.ranks import own_dropout
from bayes_panns.svi import FitSettings
from bayes_panns.svi.batches import Batch
from bayes_panns.svi.reading import NotFiniteError
from bayes_panns.svi.stepper import Stepper
from tests.svi.test_fit import job, metrics, same, state, store  # noqa: F401

CLIPS = 7
LOCAL = Strategy(default=Settings(posterior="point"), rule=[Rule(match="fc*", posterior="normal", estimator="local")])
STRATEGIES = {
    **{each: Strategy(default=Settings(estimator=each)) for each in ("weights", "flipout", "mirrored")},
    "local": LOCAL,
}
NATURAL = {"optimizer": "natural-gradient", "kl_weight": 1e-3}
CASES = {
    **{each: ({}, each) for each in STRATEGIES},
    "mixup": ({"mixup": True}, "flipout"),
    "natural": (NATURAL, "mirrored"),
    "gauss-newton": (NATURAL | {"natural": {"curvature": "gauss-newton"}}, "flipout"),
    "price": (NATURAL | {"natural": {"curvature": "price"}}, "weights"),
}


def stepper(parts, settings, estimator, *, statistics="frozen", dropout=False):
    torch.manual_seed(0)
    strategy = STRATEGIES[estimator].model_copy(update={"dropout": "fit" if dropout else "off"})
    model = BayesianNet.from_strategy(build("resnet14-narrow", 3), strategy, OneOfK(), clips=24)
    guide = guide_from_strategy(model, strategy)
    chosen = FitSettings(**{"batch_size": CLIPS, "accumulate": parts, **settings})
    made = Stepper(model, guide, chosen, clips=24, embedded=False)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and statistics == "frozen":
            module.eval()
    return made


def batch(mixup=False):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(CLIPS, 40, 64, generator=generator)
    target = torch.nn.functional.one_hot(torch.arange(CLIPS) % 3, 3).float()
    mixed = Mixup.draw(CLIPS, generator=generator) if mixup else None
    return Batch(features, mixed(target) if mixed else target, spec_augment=SpecAugment(), mixup=mixed)


def stepped(made, clips, steps=1):
    torch.manual_seed(1)
    for number in range(steps):
        made.step(clips, rate=1.0, kl_weight=1e-3, number=number)
    return made.read()[-1]


def distance(one, other):
    return ((one - other).norm() / one.norm()).item()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("parts", [2, 7])
def test_parts_are_one_step_within_rounding(case, parts):
    settings, estimator = CASES[case]
    whole, divided = (stepper(each, settings, estimator) for each in (1, parts))
    clips = batch(mixup=case == "mixup")
    expected, after = stepped(whole, clips), torch.get_rng_state()
    found = stepped(divided, clips)
    assert torch.equal(torch.get_rng_state(), after)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.nll == pytest.approx(expected.nll, rel=1e-5)
    assert found.kl == pytest.approx(expected.kl, nan_ok=True)
    assert divided.kl_weight == whole.kl_weight
    names = [name for name, each in whole.objective.named_parameters() if each.grad is not None]
    gradients = [
        torch.cat([dict(made.objective.named_parameters())[name].grad.flatten() for name in names])
        for made in (whole, divided)
    ]
    assert distance(*gradients) < 1e-4
    if whole.natural is not None:
        widths = [torch.cat([each.log_scale.flatten() for each in made.natural._weights]) for made in (whole, divided)]
        assert distance(*widths) < 1e-4


def test_statistics_of_batch_norm_are_those_of_each_part():
    whole, divided = (stepper(each, {}, "weights", statistics="own") for each in (1, 2))
    stepped(whole, batch())
    stepped(divided, batch())
    counted = [made.objective.model.net.bn0.num_batches_tracked.item() for made in (whole, divided)]
    assert counted == [1, 2]


def test_parts_have_the_same_weights_and_masks_of_their_own_under_dropout():
    made = stepper(2, {}, "weights", dropout=True)
    seen, masks = [], []
    net = made.objective.model.net
    net.conv_block1.register_forward_pre_hook(lambda module, _: seen.append(module.conv2.weight.value.detach().clone()))
    net.fc1.register_forward_pre_hook(lambda module, args: seen.append(module.weight.value.detach().clone()))
    with own_dropout(made.objective.model, 0, own=True) as drop_at:
        net.dropout_clip.register_forward_hook(lambda _, __, output: masks.append((output == 0)[:3]))
        drop_at(0)
        stepped(made, batch())
    # fc1 comes after dropouts of other sizes.
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(*masks)


def test_a_loss_that_is_not_finite_in_one_part_changes_nothing():
    made, clips = stepper(2, {}, "weights"), batch()
    clips.clips[-1] = torch.nan
    before = {name: each.clone() for name, each in made.objective.named_parameters()}
    with pyro.validation_enabled(False), pytest.raises(NotFiniteError, match="the loss is nan"):
        stepped(made, clips)
    assert all(torch.equal(each, before[name]) for name, each in made.objective.named_parameters())


def test_a_step_has_no_more_parts_than_clips():
    with pytest.raises(ValueError, match="A step cannot have more parts"):
        FitSettings(batch_size=4, accumulate=5)
