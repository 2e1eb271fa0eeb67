"""What a fit leaves as it is, and where it starts."""

import numpy as np
import pytest
import torch

from bayes_panns.bayes import Settings, Strategy
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import RecipeError
from bayes_panns.posterior import Posterior
from bayes_panns.recipes import read_strategy
from bayes_panns.svi import Embeddings, Features

RATE, CLIPS = 8000, 18
LABELS = ("low", "mid", "high")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    time = np.arange(RATE // 2) / RATE
    label = np.arange(CLIPS) % 3
    pitch = np.array([300, 900, 2500])[label] * np.random.default_rng(0).uniform(0.9, 1.1, CLIPS)
    path = tmp_path_factory.mktemp("stores") / "tones.h5"
    write(
        path, 0.3 * np.sin(2 * np.pi * pitch[:, None] * time), np.eye(3, dtype=bool)[label], LABELS, Task.ONE_OF_K, RATE
    )
    return ClipSet(path)


def posterior_of(guide):
    torch.manual_seed(0)
    return Posterior.build(
        net="resnet14-narrow",
        labels=LABELS,
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=0.5,
        strategy=guide if isinstance(guide, Strategy) else read_strategy(guide),
        clips=CLIPS,
    )


def trained(posterior):
    return {
        name.removesuffix("_unconstrained")
        for module in (posterior.model, posterior.guide)
        for name, value in module.named_parameters()
        if value.requires_grad
    }


@pytest.mark.parametrize(
    ("guide", "parts", "left"),
    [
        ("flip", ["backbone"], {"0.locs.net.fc_audioset.weight", "0.log_scales.net.fc_audioset.weight"}),
        ("det", ["backbone"], {"net.fc_audioset.weight", "net.fc_audioset.bias"}),
        (
            "last-layer",
            ["backbone", "locs"],
            {"0.log_scales.net.fc_audioset.bias", "prior_log_widths.net.fc_audioset.weight"},
        ),
        ("flip", ["resnet", "conv_block1.conv2"], {"net.bn0.weight", "0.locs.net.conv_block1.conv1.weight"}),
    ],
)
def test_frozen_parts_are_not_trained(guide, parts, left):
    posterior = posterior_of(guide)
    posterior.freeze(parts)
    found = trained(posterior)
    assert left <= found
    if "backbone" in parts or "locs" in parts:
        assert all("fc_audioset" in name for name in found)
    if "locs" in parts:
        assert not any("locs" in name for name in found)
    if "resnet" in parts:
        assert not any(".resnet." in name or ("conv2" in name and "conv_block1" in name) for name in found)
    posterior.freeze([])


def test_an_unknown_part_is_told():
    with pytest.raises(RecipeError, match=r"no module 'stem'; there are bn0, .*backbone \(all but fc_audioset\)"):
        posterior_of("flip").freeze(["stem"])


def accuracy(posterior, clips):
    probability = next(posterior.draws(torch.from_numpy(clips.waveform(np.arange(CLIPS))), 0))
    return (probability.argmax(dim=1).numpy() == np.arange(CLIPS) % 3).mean()


@pytest.mark.parametrize("guide", ["det", "flip", "map", "low-rank-head"])
def test_a_probed_head_knows_the_labels(clips, guide):
    posterior = posterior_of(guide)
    data = Features(clips, posterior.front_end, Task.ONE_OF_K)
    widths = {name: std.clone() for name, (_, std) in posterior.gaussians().items()}
    backbone = posterior.points().get("fc1.weight", posterior.gaussians().get("fc1.weight", (None,))[0]).clone()
    posterior.prepare(data, new_head=False, head="probe")
    assert accuracy(posterior, clips) < 0.7
    posterior.prepare(data, new_head=True, head="random")
    assert accuracy(posterior, clips) < 0.7
    posterior.prepare(data, new_head=True, head="probe")
    assert accuracy(posterior, clips) > 0.9
    plain = {name: value.clone() for name, value in (posterior.guide.median() | posterior.points()).items()}
    posterior.prepare(data, new_head=True, head="probe", spec_augment=True, seed=1)
    masked = posterior.guide.median() | posterior.points()
    assert any(not torch.equal(value, masked[name]) for name, value in plain.items())
    for name, (_, std) in posterior.gaussians().items():
        torch.testing.assert_close(std, widths[name])
    after = posterior.points().get("fc1.weight", posterior.gaussians().get("fc1.weight", (None,))[0])
    assert torch.equal(after, backbone)


@pytest.mark.parametrize("new", [False, True])
def test_a_rotated_head_takes_its_axes_from_the_embeddings(clips, new, caplog):
    posterior = posterior_of("rotated-head")
    posterior.freeze(["backbone"])
    before = accuracy(posterior, clips)
    assert posterior.guide.needs_embeddings
    posterior.prepare(Embeddings(clips, posterior.model, Task.ONE_OF_K), new_head=new, head="probe")
    assert ("fitted to the clips" if new else "the upstream posterior's") in caplog.text
    assert accuracy(posterior, clips) == (pytest.approx(1.0, abs=0.1) if new else before)
    axes = posterior.guide.parts[0].axes
    assert not torch.equal(axes.right, torch.eye(128))
    with pytest.raises(ValueError, match="takes its axes from embeddings"):
        posterior.prepare(Features(clips, posterior.front_end, Task.ONE_OF_K), new_head=new)


def test_words_that_are_no_choice_are_refused():
    for wrong in ({"posterior": "cauchy"}, {"prior": "x"}, {"estimator": "x"}):
        with pytest.raises(ValueError, match="Input should be"):
            Settings(**wrong)
    with pytest.raises(ValueError, match="Input should be 'off', 'fit' or 'always'"):
        Strategy(dropout="sometimes")
