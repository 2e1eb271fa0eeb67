"""A second family of networks, with another head and another shape of features, works by being registered."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from bayes_panns import nets
from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, OneOfK, mirrored_draws
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import NETS, Network, NetworkEntry, backbone, build, register
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.recipes import names, read_strategy
from bayes_panns.svi import Embeddings, Features, Fit, FitSettings

RATE = 8000
LABELS = ("a", "b", "c")


class MelFirst(LogMel):
    """Log-mels of shape (mels, frames)."""

    def forward(self, waveform):
        return super().forward(waveform).transpose(1, 2)


class Small(Network):
    """Its last layer is inside a container, and nothing of it is called as in PANNs."""

    head = "classifier.5"

    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 6),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(6, classes),
        )

    def embed(self, features, augment=None):
        assert features.shape[1] == 64
        x = features[:, None] / 100
        x = self.features(x if augment is None else augment(x))
        for index in range(5):
            x = self.classifier[index](x)
        return x

    def classify(self, embedding):
        return self.classifier[5](embedding)

    def front_end(self, sample_rate):
        return MelFirst(sample_rate)

    def activation_bytes(self, frames):
        return 4 * 64 * frames * 4


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(NETS, "small", NetworkEntry("a small network", Small))


def posterior_of(guide, **options):
    return Posterior.build(
        net="small",
        labels=LABELS,
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=0.5,
        strategy=read_strategy(guide),
        **options,
    )


GUIDES = [name for name in names("guides") if name not in ("flip-last-stage", "flip-upstream-prior")]


def predictions(posterior, clips, draws=4):
    return torch.stack(list(posterior.draws(clips, draws)))


@pytest.mark.parametrize("guide", GUIDES)
def test_every_guide_recipe_fits_it_and_survives_the_disk(tmp_path, guide):
    posterior = posterior_of(guide)
    posterior.guide.prepare(torch.randn(10, 2, 6), None)
    clips = 0.1 * torch.randn(3, RATE // 2)
    save(posterior, tmp_path / "p")
    for draws in (0, 4):
        torch.testing.assert_close(
            predictions(load(tmp_path / "p"), clips, draws), predictions(posterior, clips, draws)
        )


def test_its_head_is_found_by_the_rule_head(tmp_path):
    posterior = posterior_of("last-layer", clips=9)
    assert tuple(posterior.model.sites) == posterior.model.head_sites
    assert posterior.model.head_sites == ("net.classifier.5.weight", "net.classifier.5.bias")
    assert posterior.model.only_head
    clips = 0.1 * torch.randn(3, RATE // 2)
    embedding = posterior.model.eval().embed(clips)
    made = posterior.logits(clips, 2)
    for weights, logits in zip(islice(mirrored_draws(posterior.guide, 0), 2), made, strict=True):
        expected = embedding @ weights["net.classifier.5.weight"].T + weights["net.classifier.5.bias"]
        torch.testing.assert_close(logits, expected)


def test_a_network_that_hides_its_layers_from_pyro_is_refused():
    class Slicing(Small):
        def embed(self, features, augment=None):
            return self.classifier[:5](self.features(features[:, None] / 100))

    model = BayesianNet.from_strategy(Slicing(3), read_strategy("flip"), OneOfK())
    with pytest.raises(RuntimeError, match="do not slice a Sequential"):
        model(torch.randn(2, 64, 40))


@pytest.mark.parametrize("guide", ["rotated-head", "det-flip"])
def test_it_is_fitted_on_its_embeddings_and_transferred(tmp_path, guide):
    generator = np.random.default_rng(0)
    store = tmp_path / "noise.h5"
    waveform = 0.1 * generator.normal(size=(9, RATE // 2)) * np.array([0.1, 1.0, 3.0])[np.arange(9) % 3, None]
    write(store, waveform, np.eye(3, dtype=bool)[np.arange(9) % 3], LABELS, Task.ONE_OF_K, RATE)
    upstream, posterior = posterior_of("det"), posterior_of(guide, clips=9)
    inherited = posterior.start_from(upstream)
    assert inherited.new == ()
    posterior.freeze(["backbone"])
    data = Embeddings(ClipSet(store), posterior.model, Task.ONE_OF_K, views=1)
    assert data.views.shape == (9, 2, 6)
    posterior.prepare(data, new_head=True)
    settings = FitSettings(epochs=3, batch_size=3, features="embeddings", spec_augment=False)
    assert Fit(posterior.model, posterior.guide, data, settings, tmp_path).run()
    moved = [name for name, value in posterior.points().items() if not torch.equal(value, upstream.points()[name])]
    assert all(name.startswith("classifier.5.") for name in moved)
    again = posterior_of(guide, clips=9)
    again.start_from(upstream)
    again.freeze(["backbone"])
    resumed = Fit(again.model, again.guide, data, settings, tmp_path)
    resumed.load_checkpoint()
    assert resumed.step == 9


def test_features_keep_its_shape(tmp_path):
    store = tmp_path / "noise.h5"
    write(store, np.full((3, RATE // 2), 0.1), np.eye(3, dtype=bool), LABELS, Task.ONE_OF_K, RATE)
    front_end = Small(3).front_end(RATE)
    kept, none = (Features(ClipSet(store), front_end, Task.ONE_OF_K, keep=keep) for keep in ("memory", "none"))
    assert kept.batch(torch.arange(2))[0].shape == (2, 64, front_end.frames(RATE // 2))
    assert none.batch(torch.arange(2))[0].shape == (2, RATE // 2)


def test_the_backbone_is_all_but_the_head():
    assert backbone(build("small", 2), Small.head) == ("features", *(f"classifier.{n}" for n in range(5)))
    narrow = build("resnet14-narrow", 2)
    assert set(backbone(narrow, narrow.head)) == {name for name, _ in narrow.named_children()} - {"fc_audioset"}


def test_a_name_is_given_once_and_an_unknown_one_is_told():
    with pytest.raises(ValueError, match="there is a network called small already"):
        register("small", "again", Small)
    with pytest.raises(RecipeError, match=r"no such network; there are cnn6, .*mn01, .*resnet22, .*small"):
        build("large", 2)
    assert nets.head_of(nn.Linear(2, 2)) is None


def test_a_family_must_define_its_parts():
    class Empty(Network):
        head = "x"

    for call in (Empty().embed, Empty().classify, Empty().activation_bytes, Empty().front_end):
        with pytest.raises(NotImplementedError):
            call(1)
