"""A clip shorter than those of the fit is shown to the network as it was in the fit."""

import re

import pytest
import torch

from bayes_panns.clips import Task
from bayes_panns.core.choices import ShortClips
from bayes_panns.posterior import Ensemble, Posterior, load, save, save_calibration
from bayes_panns.posterior.calibration import Calibration
from bayes_panns.recipes import read_strategy

RATE = 8000


def posterior_of(guide="flip"):
    posterior = Posterior.build(
        net="resnet14-narrow",
        labels=("cat", "dog", "rain"),
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=1.0,
        strategy=read_strategy(guide),
    )
    with torch.no_grad():
        for name, value in posterior.points().items():
            if "bn" in name and name.endswith(".weight"):
                value.normal_(1, 0.2)
            if name == "bn0.running_mean":
                value.fill_(-60.0)
    return posterior


@pytest.fixture
def short():
    return 0.1 * torch.randn(2, RATE // 4)


def padded(clips, samples=RATE):
    return torch.cat([clips, torch.zeros(len(clips), samples - clips.shape[1])], dim=1)


def stacked(posterior, clips, draws):
    return torch.stack(list(posterior.draws(clips, draws)))


@pytest.mark.parametrize(("guide", "draws"), [("flip", 3), ("flip", 0), ("det-flip", 3), ("drop", 3)])
def test_a_short_clip_is_padded(short, guide, draws):
    posterior = posterior_of(guide)
    assert posterior.short_clips == ShortClips.PAD
    torch.testing.assert_close(stacked(posterior, short, draws), stacked(posterior, padded(short), draws))
    own = posterior_of(guide)
    own.short_clips = ShortClips.OWN_LENGTH
    assert (stacked(own, short, 0) - stacked(own, padded(short), 0)).abs().max() > 1e-3


def test_moments_are_of_the_padded_clip_too(short):
    posterior = posterior_of()
    for ours, theirs in zip(posterior.moments(short), posterior.moments(padded(short)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_groups_of_several_lengths_and_longer_clips(short):
    posterior, long = posterior_of(), 0.1 * torch.randn(1, 2 * RATE)
    made = stacked(posterior, [short, long], 2)
    torch.testing.assert_close(made[:, :2], stacked(posterior, padded(short), 2), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made[:, 2:], stacked(posterior, long, 2), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(stacked(posterior, long[:, :RATE], 2), stacked(posterior, long, 2), atol=1e-4)


@pytest.mark.parametrize("kind", list(ShortClips))
def test_it_is_recorded(tmp_path, short, kind):
    posterior = posterior_of()
    posterior.short_clips = kind
    save(posterior, tmp_path / "p")
    loaded = load(tmp_path / "p")
    assert loaded.short_clips == kind
    torch.testing.assert_close(stacked(loaded, short, 2), stacked(posterior, short, 2))


@pytest.mark.parametrize(
    ("provenance", "kind"),
    [({"epochs": 3.0}, ShortClips.PAD), ({"imported": "panns"}, ShortClips.OWN_LENGTH), ({}, ShortClips.OWN_LENGTH)],
)
def test_headers_that_do_not_say_are_those_of_fits_or_of_imports(tmp_path, provenance, kind):
    posterior = posterior_of()
    posterior.provenance = provenance
    save(posterior, tmp_path / "p")
    header = tmp_path / "p" / "posterior.toml"
    text = header.read_text().replace('short_clips = "pad"\n', "").replace("format_version = 7", "format_version = 3")
    header.write_text(re.sub('digest = ".*"\n', "", text))
    loaded = load(tmp_path / "p")
    assert loaded.short_clips == kind
    loaded.calibration = Calibration(
        temperature=1.0, threshold=0.1, coverage=0.9, draws=2, clips=(3, 3), data=("a.h5",)
    )
    save_calibration(loaded)
    assert load(tmp_path / "p").short_clips == kind


def test_members_of_an_ensemble_each_go_by_their_own(short):
    first, second = posterior_of(), posterior_of()
    second.short_clips = ShortClips.OWN_LENGTH
    made = stacked(Ensemble([first, second]), short, 0)
    torch.testing.assert_close(made[:1], stacked(first, short, 0))
    torch.testing.assert_close(made[1:], stacked(second, short, 0))
