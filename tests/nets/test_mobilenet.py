"""EfficientAT's MobileNets: golden values of mn04's published weights, and what holds for any weights."""

import json
import math

import pytest
import torch
from torch import nn

from bayes_panns.audio.augment import SpecAugment
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import backbone, build
from bayes_panns.nets.mobilenet import ARCHITECTURES, BLOCKS, Convolution, whole_eighths

# Millions of parameters, as the authors' table of models gives them.
PARAMETERS = {"mn04": 0.983, "mn05": 1.43, "mn10": 4.88, "mn20": 17.91, "mn30": 39.09, "mn40": 68.43}


@torch.no_grad()
def test_mn04_is_the_published_network(formula, mn04_golden, mn04_file):
    net = build("mn04", 527).eval()
    keys = json.loads(str(mn04_golden["keys"]))
    assert {name: list(value.shape) for name, value in net.state_dict().items()} == keys
    assert list(net.state_dict()) == list(keys)
    net.load_state_dict(torch.load(mn04_file, weights_only=True))
    pooled = []
    net.classifier[1].register_forward_hook(lambda module, inputs, output: pooled.append(output))
    features = net.front_end(32000)(torch.from_numpy(formula.waveform(2, 64000)))
    embedding = net.embed(features)
    logits = net.classify(embedding)
    for name, value in {
        "pooled": pooled[0],
        "penultimate": embedding,
        "logits": logits,
        "probs": logits.double().sigmoid(),
    }.items():
        torch.testing.assert_close(value, torch.from_numpy(mn04_golden[name]), rtol=0, atol=1e-4)
    torch.testing.assert_close(net(features), logits)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_the_published_ones(name):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build(name, 527).parameters())
    assert count / 1e6 == pytest.approx(PARAMETERS[name], abs=0.006)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_name_says_its_width_and_front_end(name):
    with torch.device("meta"):
        net = build(name, 3)
    settings = net.front_end(32000).settings
    assert net.features[16][0].in_channels == whole_eighths(160 * int(name[2:4]) / 10)
    variant = name.split("_")
    assert settings.hop == (32 * int(variant[3]) if "hop" in variant else 320)
    assert settings.mels == (int(variant[3]) if "mels" in variant else 128)
    assert net.head == "classifier.5"
    assert backbone(net, net.head) == ("features", *(f"classifier.{index}" for index in range(5)))


@torch.no_grad()
@pytest.mark.parametrize("name", ["mn01", "mn10_as_hop_25", "mn10_as_mels_40", "mn10_as_mels_256"])
def test_clips_of_any_length_are_taken(name):
    net = build(name, 4).eval()
    front_end = net.front_end(32000)
    for samples in (1, 1500, 40000):
        features = front_end(0.1 * torch.randn(2, samples))
        assert net(features).shape == (2, 4)
    assert net(features[:, :1]).shape == (2, 4)


@pytest.mark.parametrize(("channels", "expected"), [(1.6, 8), (9.6, 16), (12, 16), (25.6, 24), (28, 32), (44.8, 48)])
def test_channels_are_whole_eighths(channels, expected):
    """The nearest to 9.6 is 8, which is more than a tenth below."""
    assert whole_eighths(channels) == expected


def lively(features):
    """A network whose logits for features are of order 1, so that what changes them shows; initial ones are near 0."""
    net = build("mn01", 4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    nn.init.normal_(net.classifier[2].weight, 0, 0.1)
    nn.init.normal_(net.classifier[5].weight)
    net(features)
    return net.eval()


@torch.no_grad()
def test_augmentation_sees_frames_and_mels_as_elsewhere():
    features = torch.randn(2, 50, 128)
    net = lively(features)
    seen = []
    plain = net(features, lambda spectrogram: seen.append(spectrogram) or spectrogram)
    assert torch.equal(seen[0], features[:, None])
    torch.testing.assert_close(net(features), plain)
    hidden = features.clone()
    hidden[:, 10:20], hidden[:, :, 5:9] = 0, 0
    stripes = lambda x: x.index_fill(2, torch.arange(10, 20), 0).index_fill(3, torch.arange(5, 9), 0)  # noqa: E731
    torch.testing.assert_close(net(features, stripes), net(hidden))
    assert (net(hidden) - plain).abs().max() > 0.01
    assert net(features, SpecAugment()).shape == (2, 4)


@torch.no_grad()
def test_convolutions_see_mels_by_frames_as_in_the_published_code():
    net = build("mn01", 4).eval()
    features, seen = torch.randn(2, 50, 128), []
    net.features[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(features)
    assert torch.equal(seen[0][:, 0], features.transpose(1, 2))


@torch.no_grad()
def test_a_block_with_equal_ends_adds_its_input():
    net = build("mn10", 3).eval()
    residual = [block.residual for block in net.features[1:16]]
    assert residual == [True, False, True, False, True, True, False, True, True, True, False, True, False, True, True]
    block = net.features[3]
    x = torch.randn(2, 24, 8, 6)
    torch.testing.assert_close(block(x), x + block.block(x))


def test_activations_and_excitations_are_mobilenet_v3s():
    net = build("mn10", 3)
    for shape, block in zip(BLOCKS, net.features[1:16], strict=True):
        kinds = {type(module) for module in block.modules()}
        assert (nn.Hardswish in kinds) == shape.hard_swish
        assert (nn.ReLU in kinds) == (not shape.hard_swish)
        excitations = [name for name, _ in block.named_modules() if name.endswith("conc_se_layers.0")]
        assert bool(excitations) == shape.squeeze
    assert net.features[13].block[2].conc_se_layers[0].fc1.weight.shape == (168, 672)


def test_initial_values_are_mobilenet_v3s():
    """He's rule by fan-out for convolutions, Normal(0, 0.01) for linear layers, zeros for biases."""
    net = build("mn10", 3)
    depthwise, pointwise = net.features[13].block[1][0].weight, net.features[16][0].weight
    # Fan-out is counted over all output channels, as PyTorch counts it, also where each group has one.
    assert depthwise.std().item() == pytest.approx(math.sqrt(2 / (672 * 25)), rel=0.05)
    assert pointwise.std().item() == pytest.approx(math.sqrt(2 / 960), rel=0.05)
    assert net.classifier[2].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not net.classifier[5].bias.any()


def test_dropout_switches_apart_from_batchnorm():
    net = build("mn01", 4).eval()
    features = torch.randn(2, 64, 128)
    assert torch.equal(net(features), net(features))
    net.classifier[4].train()
    before = net.features[0][1].running_mean.clone()
    torch.nn.init.normal_(net.classifier[5].weight)
    assert not torch.equal(net(features), net(features))
    assert torch.equal(net.features[0][1].running_mean, before)


def test_another_sample_rate_is_refused():
    with pytest.raises(RecipeError, match="EfficientAT defines its front end for 32000 Hz"):
        build("mn01", 4).front_end(8000)


@pytest.mark.parametrize("name", ["mn04", "mn10"])
def test_activations_take_about_what_is_said(name):
    """Peak of live tensors on the way through, by the profiler's account of allocations."""
    net = build(name, 3).eval()
    features = torch.randn(8, 400, 128)
    with torch.no_grad(), torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        net(features)
    events = sorted(
        (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    held = torch.tensor([event.nbytes() for event in events]).cumsum(0).max().item()
    estimate = 8 * net.activation_bytes(400)
    assert 0.5 * estimate < held <= estimate


def test_folding_batchnorm_into_the_convolutions_changes_rounding_only():
    net = build("mn04", 3)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value, (low, high) in zip(
                (module.weight, module.bias, module.running_mean, module.running_var),
                ((0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (0.5, 2.0)),
                strict=True,
            ):
                torch.nn.init.uniform_(value.data, low, high)
    net.eval()
    features = torch.randn(2, 100, 128)
    kept = features.clone()
    with_gradients = net.embed(features)  # BatchNorm by itself
    assert with_gradients.requires_grad
    with torch.no_grad():
        folded = net.embed(features)
        again = net.embed(features)
    torch.testing.assert_close(folded, with_gradients, rtol=1e-5, atol=1e-5)
    assert torch.equal(folded, again), "the weights are left as they were"
    assert torch.equal(features, kept), "the features are left as they were"


def test_a_layer_in_the_place_of_a_convolution_is_called():
    torch.manual_seed(0)
    layer = Convolution(3, 4).eval()
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        expected = layer(x)
        # Such as a Bayesian layer of another package, which has no weight.
        layer[0] = nn.Sequential(layer[0])
        torch.testing.assert_close(layer(x), expected)


def test_batchnorm_in_training_mode_is_not_folded():
    net = build("mn01", 3).train()
    before = net.features[0][1].running_mean.clone()
    with torch.no_grad():
        net(torch.randn(2, 100, 128))
    assert not torch.equal(net.features[0][1].running_mean, before)
