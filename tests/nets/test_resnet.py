import json

import pytest
import torch

from bayes_panns.audio.front_end import LogMel
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import NETS, build

# Kong et al., 2020, give 63.7 M, 73.8 M and 104.3 M for 527 classes, the front end's constants included.
PARAMETERS = {"resnet22": 63.7e6, "resnet38": 73.8e6, "resnet54": 104.3e6}


@pytest.mark.slow
@torch.no_grad()
def test_resnet54_is_the_published_network(reference):
    formula, golden = reference
    net = build("resnet54", 527).eval()
    shapes = json.loads(str(golden["keys"]))
    own = {name: shape for name, shape in shapes.items() if not name.startswith(("spectrogram", "logmel"))}
    assert {name: list(value.shape) for name, value in net.state_dict().items()} == own
    net.load_state_dict({name: torch.from_numpy(formula.tensor(name, shape)) for name, shape in own.items()})
    logmel = LogMel()(torch.from_numpy(formula.waveform(2, 64000)))
    logits = net(logmel)
    torch.testing.assert_close(logits, torch.from_numpy(golden["logits"]), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits.sigmoid(), torch.from_numpy(golden["probs"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_the_papers(name):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build(name, 527).parameters())
    assert count == pytest.approx(PARAMETERS[name], rel=0.02)


@pytest.mark.parametrize("name", ["resnet22", "resnet38"])
def test_basic_blocks_have_panns_names(name):
    with torch.device("meta"):
        names = set(build(name, 3).state_dict())
    # Stride 1 keeps the channels in a basic block, so the first stage has no shortcut convolution.
    assert "resnet.layer1.0.downsample.0.weight" not in names
    assert {
        "bn0.weight",
        "conv_block1.conv2.weight",
        "resnet.layer1.0.conv2.weight",
        "resnet.layer2.0.downsample.1.weight",
        "resnet.layer4.0.downsample.2.running_var",
        "conv_block_after1.bn2.bias",
        "fc1.bias",
        "fc_audioset.weight",
    } <= names
    depth = {"resnet22": [2, 2, 2, 2], "resnet38": [3, 4, 6, 3]}[name]
    for stage, blocks in enumerate(depth, start=1):
        assert f"resnet.layer{stage}.{blocks - 1}.conv1.weight" in names
        assert f"resnet.layer{stage}.{blocks}.conv1.weight" not in names


@pytest.mark.parametrize("frames", [1, 5, 31, 32, 33, 101])
def test_clips_of_any_length_are_taken(frames):
    net = build("resnet14-narrow", 4).eval()
    assert net(torch.randn(2, frames, 64)).shape == (2, 4)


def test_short_clips_are_padded_with_silence():
    net = build("resnet14-narrow", 4).eval()
    short = torch.randn(1, 10, 64)
    padded = torch.cat([short, torch.full((1, 22, 64), -100.0)], dim=1)
    torch.testing.assert_close(net(short), net(padded))


def test_dropouts_switch_apart_from_batchnorm():
    net = build("resnet14-narrow", 4).eval()
    logmel = torch.randn(2, 64, 64)
    assert torch.equal(net(logmel), net(logmel))
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    before = net.bn0.running_mean.clone()
    assert not torch.equal(net(logmel), net(logmel))
    assert torch.equal(net.bn0.running_mean, before)


def test_augmentation_sees_the_normalised_spectrogram():
    net = build("resnet14-narrow", 4).eval()
    seen = []
    logmel = torch.randn(2, 50, 64)
    net(logmel, lambda spectrogram: seen.append(spectrogram) or spectrogram)
    torch.testing.assert_close(seen[0], net.bn0(logmel.transpose(1, 2)[..., None]).permute(0, 3, 2, 1))


def test_an_unknown_net_names_the_known_ones():
    with pytest.raises(RecipeError, match=", ".join(NETS)):
        build("cnn99", 10)


def test_nets_know_nothing_of_pyro():
    import subprocess
    import sys

    code = "import sys, bayes_panns.nets, bayes_panns.audio.front_end; sys.exit('pyro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
