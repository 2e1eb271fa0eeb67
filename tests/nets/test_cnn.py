"""PANNs' CNNs and MobileNets: the published names, shapes and sizes, and the forward pass stated again."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import backbone, build, cnn
from bayes_panns.nets.panns_mobilenet import MobileNetV1, MobileNetV2

NAMES = ("cnn6", "cnn10", "cnn14", "cnn14-16k", "cnn14-decision-level-max", "mobilenetv1", "mobilenetv2")

# Learned parameters for 527 labels. Kong et al., 2020, table 6, give these to a tenth of a million.
PARAMETERS = {
    "cnn6": 4_837_455,
    "cnn10": 5_219_279,
    "cnn14": 80_753_615,
    "cnn14-16k": 80_753_615,
    "cnn14-decision-level-max": 80_753_615,
    "mobilenetv1": 4_796_303,
    "mobilenetv2": 4_075_343,
}


def norm(name, channels):
    shapes = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {f"{name}.num_batches_tracked": ()}


def ends(embedding_in, embedding, classes):
    """The first and last layers of all of them."""
    return norm("bn0", 64) | {
        "fc1.weight": (embedding, embedding_in),
        "fc1.bias": (embedding,),
        "fc_audioset.weight": (classes, embedding),
        "fc_audioset.bias": (classes,),
    }


def cnn_shapes(widths, kernel):
    shapes, channels = {}, 1
    for block, width in enumerate(widths, start=1):
        for layer in (1,) if kernel == 5 else (1, 2):
            shapes[f"conv_block{block}.conv{layer}.weight"] = (width, channels, kernel, kernel)
            shapes |= norm(f"conv_block{block}.bn{layer}", width)
            channels = width
    return shapes | ends(channels, channels, 527)


def v1_shapes():
    widths = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    shapes = {"features.0.0.weight": (32, 1, 3, 3)} | norm("features.0.2", 32)
    for block in range(1, 14):
        before, after = widths[block - 1 : block + 1]
        shapes |= {f"features.{block}.0.weight": (before, 1, 3, 3)} | norm(f"features.{block}.2", before)
        shapes |= {f"features.{block}.4.weight": (after, before, 1, 1)} | norm(f"features.{block}.5", after)
    return shapes | ends(1024, 1024, 527)


def v2_shapes():
    widths = [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    shapes, before = {"features.0.0.weight": (32, 1, 3, 3)} | norm("features.0.2", 32), 32
    for block, after in enumerate(widths, start=1):
        name, wide, at = f"features.{block}.conv", before, 0
        if block > 1:
            wide, at = 6 * before, 3
            shapes |= {f"{name}.0.weight": (wide, before, 1, 1)} | norm(f"{name}.1", wide)
        shapes |= {f"{name}.{at}.weight": (wide, 1, 3, 3)} | norm(f"{name}.{at + 2}", wide)
        shapes |= {f"{name}.{at + 4}.weight": (after, wide, 1, 1)} | norm(f"{name}.{at + 5}", after)
        before = after
    shapes |= {"features.18.0.weight": (1280, 320, 1, 1)} | norm("features.18.1", 1280)
    return shapes | ends(1280, 1024, 527)


SIX = [64, 128, 256, 512, 1024, 2048]
PUBLISHED_SHAPES = {
    "cnn6": cnn_shapes(SIX[:4], 5),
    "cnn10": cnn_shapes(SIX[:4], 3),
    "cnn14": cnn_shapes(SIX, 3),
    "cnn14-16k": cnn_shapes(SIX, 3),
    "cnn14-decision-level-max": cnn_shapes(SIX, 3),
    "mobilenetv1": v1_shapes(),
    "mobilenetv2": v2_shapes(),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_sizes_are_the_published_ones(name):
    with torch.device("meta"):
        net = build(name, 527)
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == PUBLISHED_SHAPES[name]
    assert sum(parameter.numel() for parameter in net.parameters()) == PARAMETERS[name]
    assert net.head == "fc_audioset"
    assert set(backbone(net, net.head)) == {child for child, _ in net.named_children()} - {"fc_audioset"}


def narrow(name, classes=3):
    """The network of that name with an eighth of the channels, lively: BatchNorm does something, and logits vary."""
    if name.startswith("cnn"):
        architecture = cnn.ARCHITECTURES[name]
        net = cnn.make(replace(architecture, widths=tuple(width // 8 for width in architecture.widths)), classes)
    else:
        net = build(name, classes)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Large enough for ReLU6 to cut values off.
            nn.init.uniform_(module.weight, *((2, 4) if name == "mobilenetv2" else (0.8, 1.6)))
            nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(net.fc_audioset.bias)
    return net.eval()


def stated_again(name, net, features):
    """The published forward pass, from the weights alone: logits of clips, or of segments."""
    state = net.state_dict()

    def bn(x, key):
        return F.batch_norm(
            x, state[f"{key}.running_mean"], state[f"{key}.running_var"], state[f"{key}.weight"], state[f"{key}.bias"]
        )

    def conv(x, key, groups=1):
        weight = state[f"{key}.weight"]
        return F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=groups)

    def depthwise(x, key):
        return conv(x, key, groups=len(state[f"{key}.weight"]))

    x = bn(features[:, None].transpose(1, 3), "bn0").transpose(1, 3)
    if name.startswith("cnn"):
        blocks = 4 if name in ("cnn6", "cnn10") else 6
        for block in range(1, blocks + 1):
            for layer in (1,) if name == "cnn6" else (1, 2):
                x = bn(conv(x, f"conv_block{block}.conv{layer}"), f"conv_block{block}.bn{layer}").relu()
            x = F.avg_pool2d(x, 1 if block == 6 else 2)
    elif name == "mobilenetv1":
        x = bn(F.avg_pool2d(conv(x, "features.0.0"), 2), "features.0.2").relu()
        for block in range(1, 14):
            pool = 2 if block in (2, 4, 6, 12) else 1
            x = bn(F.avg_pool2d(depthwise(x, f"features.{block}.0"), pool), f"features.{block}.2").relu()
            x = bn(conv(x, f"features.{block}.4"), f"features.{block}.5").relu()
    else:
        x = bn(F.avg_pool2d(conv(x, "features.0.0"), 2), "features.0.2").clamp(0, 6)
        for block in range(1, 18):
            key, shortcut, at = f"features.{block}.conv", x, 0
            if block > 1:
                x, at = bn(conv(x, f"{key}.0"), f"{key}.1").clamp(0, 6), 3
            pool = 2 if block in (2, 4, 7, 11) else 1
            x = bn(F.avg_pool2d(depthwise(x, f"{key}.{at}"), pool), f"{key}.{at + 2}").clamp(0, 6)
            x = bn(conv(x, f"{key}.{at + 4}"), f"{key}.{at + 5}")
            # Where a block neither pools nor changes the number of channels.
            if block in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16):
                x = x + shortcut
        x = bn(conv(x, "features.18.0"), "features.18.1").clamp(0, 6)
    x = x.mean(dim=3)
    if name == "cnn14-decision-level-max":
        x = (F.max_pool1d(x, 3, 1, 1) + F.avg_pool1d(x, 3, 1, 1)).transpose(1, 2)
    else:
        x = x.max(dim=2).values + x.mean(dim=2)
    x = F.linear(x, state["fc1.weight"], state["fc1.bias"]).relu()
    return F.linear(x, state["fc_audioset.weight"], state["fc_audioset.bias"])


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_the_forward_pass_is_the_published_one(name):
    net, features = narrow(name), 3 * torch.randn(2, 171, 64)
    expected = stated_again(name, net, features)
    if name == "cnn14-decision-level-max":
        assert expected.shape == (2, 5, 3)
        expected = expected.sigmoid().max(dim=1).values.logit()
    assert expected.std() > 0.01
    torch.testing.assert_close(net(features), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(net.classify(net.embed(features)), net(features))


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 20, 32, 101, 171, 192])
def test_the_framewise_output_is_the_published_one(frames):
    """Each segment's probability 32 times over, then the last one's to the end; the clip's is the largest."""
    net, features = narrow("cnn14-decision-level-max"), 3 * torch.randn(2, frames, 64)
    padded = F.pad(features, (0, 0, 0, max(0, 32 - frames)), value=-100.0)
    segments = stated_again("cnn14-decision-level-max", net, padded).sigmoid()
    expected = segments.repeat_interleave(32, dim=1)[:, :frames]
    expected = torch.cat([expected, segments[:, -1:].expand(-1, frames - expected.shape[1], -1)], dim=1)
    logits = net.framewise(features)
    assert logits.shape == (2, frames, 3)
    torch.testing.assert_close(logits.sigmoid(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(logits.amax(dim=1), net(features))


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_short_clips_are_padded_with_silence_and_no_more_than_pooling_needs(name):
    net = narrow(name)
    shortest = 16 if name in ("cnn6", "cnn10") else 32
    assert net.shortest == shortest
    short = torch.randn(1, 10, 64)
    padded = torch.cat([short, torch.full((1, shortest - 10, 64), -100.0)], dim=1)
    torch.testing.assert_close(net(short), net(padded))
    assert net(torch.randn(2, shortest, 64)).shape == net(torch.randn(2, 1, 64)).shape == (2, 3)


def of_front_end(net, rate):
    settings = net.front_end(rate).settings
    return settings.window, settings.hop, settings.mels, settings.fmin, settings.fmax


def test_cnn14_16k_takes_16_khz_only():
    with torch.device("meta"):
        net, others = build("cnn14-16k", 3), [build(name, 3) for name in NAMES if name != "cnn14-16k"]
    assert of_front_end(net, 16000) == (512, 160, 64, 50, 8000)
    with pytest.raises(RecipeError, match="sample_rate 32000: PANNs Cnn14_16k is for 16000 Hz"):
        net.front_end(32000)
    for other in others:
        assert of_front_end(other, 32000) == (1024, 320, 64, 50, 14000)


RATES = {
    **{name: [0.2, 0.5] for name in ("cnn6", "cnn10", "cnn14", "cnn14-16k")},
    "cnn14-decision-level-max": [0.2, 0.5, 0.5],
    "mobilenetv1": [0.5],
    "mobilenetv2": [],
}


@pytest.mark.parametrize("name", NAMES)
def test_dropouts_are_the_published_ones_and_switch_apart_from_batchnorm(name):
    net, features = narrow(name), torch.randn(2, 64, 64)
    dropouts = [module for module in net.modules() if isinstance(module, nn.Dropout)]
    assert [module.p for module in dropouts] == RATES[name]
    assert torch.equal(net(features), net(features))
    before = net.bn0.running_mean.clone()
    for module in dropouts:
        module.train()
        assert not torch.equal(net(features), net(features))
        module.eval()
    assert torch.equal(net.bn0.running_mean, before)


@pytest.mark.parametrize("name", NAMES)
def test_augmentation_sees_the_normalised_spectrogram(name):
    net, seen, features = narrow(name), [], torch.randn(2, 50, 64)
    net(features, lambda spectrogram: seen.append(spectrogram) or spectrogram)
    torch.testing.assert_close(seen[0], net.bn0(features.transpose(1, 2)[..., None]).permute(0, 3, 2, 1))


def test_initial_values_are_panns():
    net = build("mobilenetv1", 3)
    for weight, fans in ((net.features[13][4].weight, 2048), (net.features[13][0].weight, 9 * 1025)):
        assert weight.abs().max().item() == pytest.approx((6 / fans) ** 0.5, rel=0.01)
    assert not net.fc1.bias.any()
    assert not net.fc_audioset.bias.any()


@pytest.mark.parametrize("make", [MobileNetV1, MobileNetV2, lambda classes: build("cnn6", classes)])
def test_activations_take_about_what_is_said(make):
    """Peak of live tensors on the way through, by the profiler's account of allocations."""
    net, features = make(3).eval(), torch.randn(4, 400, 64)
    with torch.no_grad(), torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        net(features)
    events = sorted(
        (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    held = torch.tensor([event.nbytes() for event in events]).cumsum(0).max().item()
    estimate = 4 * net.activation_bytes(400)
    assert 0.5 * estimate < held <= estimate
