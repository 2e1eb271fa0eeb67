"""EfficientAT's checkpoints through the real commands: the published mn04, and small networks with random weights."""

import json

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.clips import Task, write
from bayes_panns.core.choices import ShortClips
from bayes_panns.core.errors import CheckpointError, PosteriorError
from bayes_panns.interop import export_checkpoint, import_checkpoint, network_checkpoint
from bayes_panns.nets import build
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.recipes import names, read_strategy

LABELS = ("dog", "rain", "siren")


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def state_dict(net="mn01", labels=3):
    """A network with BatchNorm statistics and a last layer that are not the initial ones."""
    state = build(net, labels).state_dict()
    for name, value in state.items():
        if value.is_floating_point() and value.dim() == 1:
            value.uniform_(0.5, 1.5) if name.endswith(("weight", "running_var")) else value.normal_(0, 0.1)
        elif name == "classifier.5.weight":
            value.normal_()
    return state


@pytest.fixture
def saved(tmp_path):
    def save(content, name="net.pt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture(scope="module")
def mn04(mn04_file, real_data, tmp_path_factory):
    """The published network, imported by the command."""
    out = tmp_path_factory.mktemp("mn04") / "posterior"
    labels = real_data / "audioset" / "class_labels_indices.csv"
    shown = run("import", "efficientat", mn04_file, "-o", out, "--labels", labels)
    assert "mn04, 527 labels, 32000 Hz; 0 weight tensors variational, 312 others" in shown.stderr
    assert "--net" not in shown.stderr
    return out


def test_the_published_network_is_imported_as_it_is(mn04, mn04_file):
    posterior, published = load(mn04), torch.load(mn04_file, weights_only=True)
    points = posterior.points()
    assert points.keys() == published.keys()
    assert all(torch.equal(points[name], value) for name, value in published.items())
    assert (posterior.task, posterior.clip_seconds) == (Task.MULTI_LABEL, 10.0)
    assert posterior.short_clips is ShortClips.OWN_LENGTH
    assert posterior.labels[0] == "Speech"


def test_the_published_network_gets_widths_from_real_clips_without_labels(mn04_file, mn04, real_data, tmp_path):
    files = sorted((real_data / "esc10" / "audio").glob("*.ogg"))[:6]
    clips = [soundfile.read(file, frames=32000, dtype="float32", always_2d=True)[0][:, 0] for file in files]
    write(tmp_path / "clips.h5", np.stack(clips), np.zeros((6, 0), dtype=bool), (), Task.UNLABELLED, 32000)
    labels = ("--labels", real_data / "audioset" / "class_labels_indices.csv")
    fisher = ("--scale", "fisher", "--data", tmp_path / "clips.h5", "--clips", 2_000_000)
    shown = run("import", "efficientat", mn04_file, "-o", tmp_path / "imported", *labels, *fisher)
    assert "82 weight tensors variational, 230 others" in shown.stderr
    run("widths", mn04, "--data", tmp_path / "clips.h5", "--clips", 2_000_000, "-o", tmp_path / "widened")
    imported, widened = load(tmp_path / "imported"), load(tmp_path / "widened")
    points = load(mn04).points()
    for name, (loc, scale) in imported.gaussians().items():
        assert torch.equal(loc, points[name])
        assert torch.equal(scale, widened.gaussians()[name][1])
        assert (scale > 0).all()
    # The first layers, which every clip and every frame uses, are the best known.
    unit = {site.name: site.fan_in**-0.5 for site in imported.model.sites.values()}
    share = {name: float((scale / unit[name]).log().mean().exp()) for name, (_, scale) in imported.gaussians().items()}
    assert share["features.0.0.weight"] < 0.01 < 0.1 < share["classifier.2.weight"]


@pytest.mark.parametrize("number", [0, 1])
def test_real_clips_have_the_published_codes_probabilities(mn04, mn04_golden, real_data, number):
    name = str(mn04_golden[f"file{number}"])
    folder = "esc10/audio" if number == 0 else "audioset"
    waveform, rate = soundfile.read(real_data / folder / name, dtype="float32", always_2d=True)
    mono = torch.from_numpy(waveform).mean(dim=1, keepdim=True).T
    clip = torchaudio.functional.resample(mono, rate, 32000)[:, : 5 * 32000]
    probability = next(load(mn04).draws(clip, 0))
    np.testing.assert_allclose(probability, mn04_golden[f"file{number}_probs"], rtol=0, atol=1e-4)


def test_speech_is_named_first_on_audiosets_excerpt(mn04, real_data):
    result = run("predict", mn04, real_data / "audioset" / "R9_ZSCveAHg_7s.wav", "--format", "json")
    tags = json.loads(result.stdout)
    probability = tags["windows"][0]["probability"]
    assert tags["labels"][int(np.argmax(probability))] == "Speech"


def test_the_published_network_is_exported_and_loads_back(mn04, mn04_file, tmp_path):
    run("export", mn04, "-o", tmp_path / "again.pt")
    published = torch.load(mn04_file, weights_only=True)
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert list(again["model"]) == list(published)
    assert all(torch.equal(again["model"][name], value) for name, value in published.items())
    run("import", "efficientat", tmp_path / "again.pt", "-o", tmp_path / "posterior")
    clips = 0.1 * torch.randn(2, 20000)
    assert torch.equal(next(load(tmp_path / "posterior").draws(clips, 0)), next(load(mn04).draws(clips, 0)))


@pytest.mark.parametrize("guide", ["flip", "det-flip", "map"])
def test_the_mean_of_any_guide_is_exported_and_imported_again(tmp_path, guide):
    posterior = build_posterior(guide)
    export_checkpoint(posterior, tmp_path / "net.pt", "efficientat")
    again = import_checkpoint(tmp_path / "net.pt", "efficientat")
    for attribute in ("net", "labels", "task", "sample_rate", "clip_seconds"):
        assert getattr(again, attribute) == getattr(posterior, attribute)
    clips = 0.1 * torch.randn(3, 16000)
    assert torch.equal(next(again.draws(clips, 0)), next(posterior.draws(clips, 0)))


def test_an_export_has_no_matrices_and_is_of_the_networks_own_kind(tmp_path):
    posterior = build_posterior("det")
    assert list(network_checkpoint(posterior)["model"]) == list(build("mn01", 3).state_dict())
    with pytest.raises(
        PosteriorError, match="net mn01: is not a network of panns checkpoints; export it as efficientat"
    ):
        export_checkpoint(posterior, tmp_path / "net.pt", "panns")
    save(posterior, tmp_path / "p")
    shown = run("export", tmp_path / "p", "-o", tmp_path / "net.pt", "--format", "panns", code=1)
    assert "export it as efficientat" in shown.stderr
    assert not (tmp_path / "net.pt").exists()


def test_the_network_is_found_by_its_shapes(saved):
    for net in ("mn01", "mn02", "mn04", "mn05"):
        posterior = import_checkpoint(saved(state_dict(net)), "efficientat", labels=LABELS)
        assert posterior.net == net


def test_variants_of_one_shape_are_told_apart_by_name(saved, caplog):
    """Only the shapes matter: a file of views of one number is small."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build("mn10", 3).state_dict().items()}
    path = saved({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()})
    assert import_checkpoint(path, "efficientat", labels=LABELS).net == "mn10"
    assert len(caplog.messages) == 1
    assert "is read as mn10; its shapes are also those of mn10_as_hop_5, " in caplog.text
    caplog.clear()
    posterior = import_checkpoint(path, "efficientat", labels=LABELS, net="mn10_as_hop_5")
    assert posterior.net == "mn10_as_hop_5"
    assert posterior.front_end.frames(32000) == 200
    assert not caplog.messages
    export_checkpoint(posterior, path)
    assert import_checkpoint(path, "efficientat").net == "mn10_as_hop_5"
    assert not caplog.messages


@pytest.mark.parametrize(
    ("kind", "content", "options", "message"),
    [
        ("panns", lambda: state_dict(), {}, "mn01 is not a network of panns checkpoints; import it as efficientat"),
        ("panns", lambda: state_dict(), {"net": "mn01"}, "mn01 is not a network of panns checkpoints; import it as"),
        (
            "efficientat",
            lambda: build("resnet14-narrow", 3).state_dict(),
            {},
            "resnet14-narrow is not a network of efficientat checkpoints; import it as panns or vi-pann",
        ),
        (
            "efficientat",
            lambda: {name: value for name, value in state_dict().items() if name != "classifier.2.bias"},
            {},
            "the network mn01, the most similar one: classifier.2.bias is missing",
        ),
        (
            "efficientat",
            lambda: state_dict() | {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(3)},
            {},
            "spectrogram_extractor.stft.conv_real.weight is not one of its parameters",
        ),
        (
            "efficientat",
            lambda: state_dict() | {"features.0.0.mu_kernel": torch.zeros(3)},
            {},
            r"is a Flipout checkpoint \(it has features.0.0.mu_kernel\); import it as vi-pann",
        ),
        ("efficientat", lambda: state_dict(), {"net": "mn02"}, "the network mn02: .* has shape"),
    ],
)
def test_a_file_of_another_kind_or_network_is_one_line(saved, kind, content, options, message):
    path = saved(content())
    with pytest.raises(CheckpointError, match=message) as error:
        import_checkpoint(path, kind, labels=LABELS, **options)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def build_posterior(guide, **options):
    settings = {"net": "mn01", "labels": LABELS, "task": Task.ONE_OF_K, "sample_rate": 32000, "clip_seconds": 0.5}
    return Posterior.build(**settings | {"strategy": read_strategy(guide)} | options)


@pytest.mark.parametrize(
    "guide", [guide for guide in names("guides") if guide not in ("flip-last-stage", "flip-upstream-prior")]
)
def test_every_guide_predicts_and_survives_the_disk(tmp_path, guide):
    posterior = build_posterior(guide)
    posterior.guide.prepare(torch.randn(10, 2, 128), None)
    save(posterior, tmp_path / "p")
    clips = 0.1 * torch.randn(3, 16000)
    again = load(tmp_path / "p")
    for draws in (0, 4):
        one, other = (torch.stack(list(each.draws(clips, draws))) for each in (again, posterior))
        torch.testing.assert_close(one, other)
        assert torch.isfinite(one).all()


def test_moments_are_exact_for_a_last_layer_and_refused_for_convolutions(tmp_path):
    clips = 0.1 * torch.randn(2, 16000)
    posterior = build_posterior("det-flip")
    loc, deviations = posterior.moments(clips)
    embedding = posterior.model.eval().embed(clips)
    means, scales = posterior.gaussians()["classifier.5.weight"]
    bias = posterior.gaussians()["classifier.5.bias"]
    torch.testing.assert_close(loc, embedding @ means.T + bias[0])
    variance = embedding.square() @ scales.square().T + bias[1].square()
    torch.testing.assert_close(deviations.square().sum(dim=0), variance)
    with pytest.raises(PosteriorError, match=r"net mn01: moments .* use draws"):
        build_posterior("flip").moments(clips)
    save(build_posterior("flip"), tmp_path / "p")
    soundfile.write(tmp_path / "clip.wav", clips[0].numpy(), 32000)
    shown = run("predict", tmp_path / "p", tmp_path / "clip.wav", "--draws", "moments", code=1)
    assert shown.stderr.count("\n") == 1
    assert "net mn01: moments" in shown.stderr


@pytest.mark.parametrize(
    ("recipe", "net", "head"), [("fixed-features", "mn04", "classifier.5"), ("rotated-head", "mn04-pooled", "fc")]
)
def test_a_last_layer_is_fitted_on_its_embeddings(tmp_path, recipe, net, head):
    generator = np.random.default_rng(0)
    loudness = np.array([0.01, 0.1, 0.5])[np.arange(12) % 3, None]
    waveform = loudness * generator.normal(size=(12, 8000)).clip(-1.9, 1.9)
    write(tmp_path / "c.h5", waveform, np.eye(3, dtype=bool)[np.arange(12) % 3], LABELS, Task.ONE_OF_K, 32000)
    upstream = build_posterior("det", net="mn04", labels=("a", "b", "c", "d"), task=Task.MULTI_LABEL)
    save(upstream, tmp_path / "upstream")
    command = (
        "finetune",
        recipe,
        "--from",
        tmp_path / "upstream",
        "--data",
        tmp_path / "c.h5",
        "--set",
        "fit.epochs=2",
    )
    run(*command, "-o", tmp_path / "run")
    posterior = load(tmp_path / "run" / "posterior")
    assert posterior.net == net
    assert posterior.model.head_sites == (f"net.{head}.weight", f"net.{head}.bias")
    assert posterior.short_clips is ShortClips.PAD
    known = upstream.points()
    for name, value in posterior.points().items():
        assert name.startswith(f"{head}.") or torch.equal(value, known[name]), name
    assert len(list((tmp_path / "c.embeddings").glob("*.npz"))) == 1


def test_the_whole_network_is_fitted(tmp_path):
    write(
        tmp_path / "c.h5",
        0.1 * np.random.default_rng(0).normal(size=(6, 8000)),
        np.eye(3, dtype=bool)[np.arange(6) % 3],
        LABELS,
        Task.ONE_OF_K,
        32000,
    )
    changes = ("net=mn01", "fit.epochs=1", "fit.batch_size=3", "data.validation=0")
    settings = [part for value in changes for part in ("--set", value)]
    run("pretrain", "scratch", "--data", tmp_path / "c.h5", "--guide", "flip", *settings, "-o", tmp_path / "run")
    assert len(load(tmp_path / "run" / "posterior").gaussians()) == len(build_posterior("flip").model.sites)
