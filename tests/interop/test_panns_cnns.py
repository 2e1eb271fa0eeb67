"""Checkpoints of PANNs' CNNs and MobileNets, with random or no weights: which network a file is of, there and back."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from bayes_panns.bayes import logits_under, mirrored_draws
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import CheckpointError, PosteriorError, RecipeError
from bayes_panns.interop import PUBLISHED, export_checkpoint, import_checkpoint, network_checkpoint
from bayes_panns.interop.recognition import UNSUPPORTED
from bayes_panns.nets import NETS, NetworkEntry, build, cnn
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.recipes import names, read_strategy
from bayes_panns.svi import Embeddings, Features

LABELS = ("dog", "rain", "siren")
SEGMENTS = "cnn14-decision-level-max"
NAMES = ("cnn6", "cnn10", "cnn14", "cnn14-16k", SEGMENTS, "mobilenetv1", "mobilenetv2")


def window(samples):
    return {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(()).expand(samples // 2 + 1, 1, samples)}


def weightless(net, labels=3):
    """Weights of the right shapes; views of one number make a small file."""
    with torch.device("meta"):
        state = build(net, labels).state_dict()
    return {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}


@pytest.fixture
def saved(tmp_path):
    def save(state, name="net.pth"):
        torch.save({"model": state}, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def thin(monkeypatch):
    """The CNNs with a sixteenth of their channels."""
    for name, architecture in cnn.ARCHITECTURES.items():
        small = replace(architecture, widths=tuple(width // 16 for width in architecture.widths))
        monkeypatch.setitem(NETS, name, NetworkEntry("thin", partial(cnn.make, small)))


def published(net):
    return next(each for each in PUBLISHED.values() if each.net == net and "PANNs" in each.summary)


@pytest.mark.parametrize("name", NAMES)
def test_each_published_file_is_recognised(saved, name, caplog, thin):
    """Without a warning: by its keys and its window and, where two have the same, by its name."""
    state = weightless(name) | window(512 if name == "cnn14-16k" else 1024)
    posterior = import_checkpoint(saved(state, published(name).file), "panns", labels=LABELS)
    assert (posterior.net, posterior.sample_rate) == (name, 16000 if name == "cnn14-16k" else 32000)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("state", "options", "expected", "warning"),
    [
        (window(1024), {}, ("cnn14", 32000), "also those of cnn14-decision-level-max"),
        (window(512), {}, ("cnn14-16k", 16000), "also those of cnn14, cnn14-decision-level-max"),
        (window(256), {}, ("cnn14", 8000), "also those of cnn14-decision-level-max"),
        (window(1024), {"net": SEGMENTS}, (SEGMENTS, 32000), ""),
        ({}, {}, ("cnn14", 32000), "also those of cnn14-decision-level-max"),
        ({}, {"net": "cnn14-16k"}, ("cnn14-16k", 16000), ""),
        ({}, {"net": "cnn14"}, ("cnn14", 32000), ""),
    ],
)
def test_a_file_of_another_name_is_read_as_the_first_with_a_warning(
    saved, caplog, state, options, expected, warning, thin
):
    posterior = import_checkpoint(saved(weightless("cnn14") | state), "panns", labels=LABELS, **options)
    assert (posterior.net, posterior.sample_rate) == expected
    assert warning in caplog.text
    assert len(caplog.messages) == bool(warning)


def test_a_published_name_decides_between_efficientats_variants_too(saved, caplog):
    path = saved(weightless("mn10"), "mn10_as_hop_5_mAP_475.pt")
    assert import_checkpoint(path, "efficientat", labels=LABELS).net == "mn10_as_hop_5"
    assert not caplog.messages


def test_a_published_name_does_not_outweigh_the_weights(saved):
    path = saved(weightless("cnn6"), published("cnn10").file)
    assert import_checkpoint(path, "panns", labels=LABELS).net == "cnn6"


def test_a_net_of_another_rate_is_one_line(saved, thin):
    path = saved(weightless("cnn14") | window(1024))
    with pytest.raises(CheckpointError, match="of 32000 Hz, which cnn14-16k does not take; leave --net out"):
        import_checkpoint(path, "panns", labels=LABELS, net="cnn14-16k")
    with pytest.raises(CheckpointError, match="cnn14-16k is not a network of vi-pann checkpoints; import it as panns"):
        import_checkpoint(path, "vi-pann", labels=LABELS)


def like_cnn14(**others):
    return weightless("cnn14") | {name.replace("__", "."): torch.zeros(shape) for name, shape in others.items()}


def without_front(state):
    return {name: value for name, value in state.items() if not name.startswith("bn0")}


WAVE = {"pre_conv0__weight": (64, 1, 11), "pre_bn0__weight": (64,)}
OTHERS = {
    "Wavegram_Logmel128_Cnn14": lambda: like_cnn14(
        **WAVE, bn0__weight=(128,), conv_block2__conv1__weight=(128, 128, 3, 3)
    ),
    "Wavegram_Logmel_Cnn14": lambda: like_cnn14(**WAVE, conv_block2__conv1__weight=(128, 128, 3, 3)),
    "Wavegram_Cnn14": lambda: like_cnn14(**WAVE),
    "Res1dNet31": lambda: {
        "conv0.weight": torch.zeros(64, 1, 11),
        "resnet.layer4.1.conv1.weight": torch.zeros(2, 2, 3),
        "fc1.weight": torch.zeros(2, 2),
    },
    "Res1dNet51": lambda: {
        "conv0.weight": torch.zeros(64, 1, 11),
        "resnet.layer4.5.conv1.weight": torch.zeros(2, 2, 3),
    },
    "DaiNet19": lambda: {"conv0.weight": torch.zeros(64, 1, 80), "bn0.weight": torch.zeros(64)},
    "LeeNet11": lambda: {"conv_block9.conv1.weight": torch.zeros(256, 128, 3)},
    "LeeNet24": lambda: {
        "conv_block9.conv1.weight": torch.zeros(()).expand(1024, 512, 3),
        "conv_block9.conv2.weight": torch.zeros(()).expand(1024, 1024, 3),
    },
    "Cnn14_DecisionLevelAtt": lambda: like_cnn14(att_block__cla__weight=(3, 2048, 1)),
    "Cnn14_mel32": lambda: like_cnn14(bn0__weight=(32,)),
    "Cnn14_mel128": lambda: like_cnn14(bn0__weight=(128,)),
    "Cnn14_emb512": lambda: like_cnn14(fc1__weight=(512, 2048)),
    "Cnn14_emb128": lambda: like_cnn14(fc1__weight=(128, 2048)),
    "Cnn14_emb32": lambda: like_cnn14(fc1__weight=(32, 2048)),
}
"""The weights of PANNs' other networks that tell them apart, as its code makes them."""


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_another_network_of_panns_is_refused_by_name(saved, name):
    path = saved(OTHERS[name]())
    with pytest.raises(CheckpointError, match=f"is a {name}, which is not supported; supported are cnn6, ") as error:
        import_checkpoint(path, "panns", labels=LABELS)
    assert "\n" not in str(error.value)
    assert "resnet54" in str(error.value)
    assert "mn10" not in str(error.value)


def test_weights_that_fit_no_network_are_told_by_the_files_name(saved):
    state = {name: value for name, value in weightless("cnn14").items() if "conv_block3" not in name}
    for file, told in (
        ("Cnn14_mAP=0.431.pth", "the network cnn14, whose published file has its name: conv_block3"),
        ("mine.pth", r"the network cnn\S*, the most similar one: conv_block3"),
    ):
        with pytest.raises(CheckpointError, match=f"does not fit {told}"):
            import_checkpoint(saved(state, file), "panns", labels=LABELS)


def test_a_network_of_the_same_weights_that_is_not_supported_is_refused_by_its_files_name(saved, thin):
    path = saved(weightless("cnn14") | window(1024), "Cnn14_DecisionLevelAvg_mAP=0.4.pth")
    with pytest.raises(CheckpointError, match="is a Cnn14_DecisionLevelAvg, which is not supported; supported are"):
        import_checkpoint(path, "panns", labels=LABELS)
    assert import_checkpoint(path, "panns", labels=LABELS, net="cnn14").net == "cnn14"


@pytest.mark.parametrize("name", ["panns-cnn10", "panns-cnn14", "panns-cnn14-decision-level-max", "panns-mobilenetv1"])
def test_the_published_files_are_as_large_as_these_tensors(name):
    """What is left is what a file of torch's holds beside them, some hundreds of bytes a tensor."""
    with torch.device("meta"):
        state = build(PUBLISHED[name].net, 527).state_dict()
    constants = 4 * (2 * 513 * 1024 + 513 * 64)
    tensors = constants + sum(value.numel() * value.element_size() for value in state.values())
    assert 50 < (PUBLISHED[name].size - tensors) / (len(state) + 3) < 400


def posterior_of(net, guide="flip", **options):
    settings = {"net": net, "labels": LABELS, "task": Task.MULTI_LABEL, "clip_seconds": 1.0}
    settings |= {"sample_rate": 16000 if net == "cnn14-16k" else 8000}
    return Posterior.build(**settings | {"strategy": read_strategy(guide)} | options)


@pytest.mark.parametrize("name", NAMES)
def test_a_posterior_is_exported_under_the_published_names_and_loads_back(tmp_path, name, thin):
    posterior = posterior_of(name, "flip")
    posterior.model.net.bn0.running_mean.normal_()
    state = network_checkpoint(posterior)["model"]
    rate = posterior.sample_rate
    assert state["spectrogram_extractor.stft.conv_real.weight"].shape[2] == {16000: 512, 8000: 256}[rate]
    with torch.device("meta"):
        assert set(state) - set(build(name, 3).state_dict()) == {
            "spectrogram_extractor.stft.conv_real.weight",
            "spectrogram_extractor.stft.conv_imag.weight",
            "logmel_extractor.melW",
        }
    export_checkpoint(posterior, tmp_path / "net.pth", "panns")
    again = import_checkpoint(tmp_path / "net.pth", "panns")
    for attribute in ("net", "labels", "task", "sample_rate", "clip_seconds"):
        assert getattr(again, attribute) == getattr(posterior, attribute)
    clips = 0.1 * torch.randn(2, rate)
    assert torch.equal(next(again.draws(clips, 0)), next(posterior.draws(clips, 0)))


# Two need an upstream posterior, or a ResNet; two the last layer of a network that has one embedding of a clip.
NOT_THESE = ("flip-upstream-prior", "flip-last-stage", "rotated-head", "last-layer")
GUIDES = [guide for guide in names("guides") if guide not in NOT_THESE]


@pytest.mark.parametrize("guide", GUIDES)
def test_every_other_guide_predicts_by_segments_and_survives_the_disk(tmp_path, guide, thin):
    posterior = posterior_of(SEGMENTS, guide)
    save(posterior, tmp_path / "p")
    # Two groups of clips of different lengths, and so of 3 and 6 segments.
    clips = [0.1 * torch.randn(3, 8000), 0.1 * torch.randn(2, 16000)]
    for draws in (0, 4):
        one, other = (torch.stack(list(each.draws(clips, draws))) for each in (load(tmp_path / "p"), posterior))
        torch.testing.assert_close(one, other)
        assert one.shape[1:] == (5, 3)


def test_a_drawn_last_layer_gives_what_the_whole_network_gives(thin):
    """Where the last layer alone is drawn, the rest runs once: the maximum over segments is still of each draw."""
    posterior = posterior_of(SEGMENTS, "det-flip")
    torch.nn.init.normal_(posterior.points()["fc1.weight"], 0, 0.2)
    assert posterior.model.only_head
    clips = 0.3 * torch.randn(2, 16000)
    fast = list(posterior.logits(clips, 3))
    for weights, logits in zip(mirrored_draws(posterior.guide, 0), fast, strict=False):
        torch.testing.assert_close(logits, logits_under(posterior.model, weights, clips))
    assert (fast[0] - fast[1]).abs().max() > 1e-3


def test_what_needs_one_embedding_of_each_clip_is_refused(tmp_path, thin):
    write(tmp_path / "c.h5", 0.1 * np.ones((4, 8000)), np.ones((4, 3), dtype=bool), LABELS, Task.MULTI_LABEL, 8000)
    posterior = posterior_of(SEGMENTS, "det-flip")
    posterior.freeze(["backbone"])
    with pytest.raises(RecipeError, match=r"last layer to every segment of a clip.*use fit.features = .memory"):
        Embeddings(ClipSet(tmp_path / "c.h5"), posterior.model, Task.MULTI_LABEL)
    features = Features(ClipSet(tmp_path / "c.h5"), posterior.front_end, Task.MULTI_LABEL)
    with pytest.raises(RecipeError, match=r"head = .probe.: the network applies its last layer to every segment"):
        posterior.prepare(features, new_head=True, head="probe")
    with pytest.raises(RecipeError, match="takes its axes from one embedding of each clip"):
        posterior_of(SEGMENTS, "rotated-head")
    with pytest.raises(RecipeError, match=r"site fc_audioset.weight: the estimator local .* each segment of a clip"):
        posterior_of(SEGMENTS, "last-layer")
    for guide, message in (("det-flip", "linear layer over 3 dimensions"), ("flip", "use draws")):
        with pytest.raises(PosteriorError, match=message):
            posterior_of(SEGMENTS, guide).moments(0.1 * torch.randn(2, 8000))


def test_dropout_cannot_be_the_posterior_of_a_network_without_dropout():
    with pytest.raises(RecipeError, match="this network has no dropout, so no two draws would differ"):
        posterior_of("mobilenetv2", "drop")
    assert posterior_of("mobilenetv1", "drop").stochastic
