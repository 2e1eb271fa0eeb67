"""What is on disk beside the weights: the header's values, the clips of the fit, and files of other people."""

import tomllib

import numpy as np
import pytest
import tomli_w
import torch

from bayes_panns.clips import Task
from bayes_panns.core.errors import PosteriorError
from bayes_panns.posterior import FittedClips, Posterior, load, read_header, save
from bayes_panns.recipes import read_strategy


def posterior_of(guide="det"):
    return Posterior.build(
        net="resnet14-narrow",
        labels=("cat", "dog"),
        task=Task.ONE_OF_K,
        sample_rate=8000,
        clip_seconds=0.5,
        strategy=read_strategy(guide),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clip_seconds", float("nan")),
        ("clip_seconds", float("inf")),
        ("clip_seconds", 0.0),
        ("clip_seconds", -1.0),
        ("sample_rate", 0),
        ("labels", []),
        ("format_version", 0),
        ("short_clips", "loop"),
        ("task", "two-of-k"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path, key, value):
    save(posterior_of(), tmp_path / "p")
    path = tmp_path / "p" / "posterior.toml"
    path.write_text(tomli_w.dumps({**tomllib.loads(path.read_text()), key: value}))
    with pytest.raises(PosteriorError, match=rf"posterior.toml: is damaged: {key}") as error:
        load(tmp_path / "p")
    assert "\n" not in str(error.value)


def test_saving_again_keeps_files_that_are_not_its_own(tmp_path):
    folder = tmp_path / "p"
    first = posterior_of()
    first.fitted_clips = FittedClips.of([b"x" * 32])
    save(first, folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "figures").mkdir()
    (folder / "figures" / "a.svg").write_text("<svg/>")
    (folder / "link").symlink_to("notes.txt")
    second = posterior_of()
    save(second, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "figures" / "a.svg").read_text() == "<svg/>"
    assert (folder / "link").is_symlink()
    assert not (folder / "fitted-clips.npz").exists(), "the second one's clips are not known"
    assert torch.equal(load(folder).points()["fc1.weight"], second.points()["fc1.weight"])


def test_a_file_or_another_folder_is_not_replaced(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PosteriorError, match="already exists and is not a posterior"):
        save(posterior_of(), tmp_path / "file")
    (tmp_path / "empty").mkdir()
    save(posterior_of(), tmp_path / "empty")
    assert read_header(tmp_path / "empty")["format_version"] == 6


def test_the_weights_are_as_readable_as_the_header(tmp_path):
    save(posterior_of(), tmp_path / "p")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "p").iterdir()}
    assert len(modes) == 1


def test_the_clips_of_a_fit_are_kept_and_counted(tmp_path):
    upstream = FittedClips.of([b"a" * 32], upstream=FittedClips.of([b"b" * 32]))
    posterior = posterior_of()
    posterior.fitted_clips = FittedClips.of([b"c" * 32, b"d" * 16], upstream=upstream)
    save(posterior, tmp_path / "p")
    found = load(tmp_path / "p").fitted_clips
    assert found == posterior.fitted_clips
    assert found.count([b"c" * 32, b"d" * 32, b"a" * 32, b"b" * 16, b"e" * 32]) == (2, 2)
    assert FittedClips().count([b"c" * 32]) == (0, 0)
    arrays = np.load(tmp_path / "p" / "fitted-clips.npz")
    assert {name: (value.dtype, value.shape) for name, value in arrays.items()} == {
        "own": (np.uint8, (2, 16)),
        "upstream": (np.uint8, (2, 16)),
    }


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_damaged_list_of_clips_is_told(tmp_path, damage):
    posterior = posterior_of()
    posterior.fitted_clips = FittedClips.of([b"c" * 32])
    save(posterior, tmp_path / "p")
    path = tmp_path / "p" / "fitted-clips.npz"
    if damage is None:
        np.savez(path, own=np.zeros((3, 8), np.uint8), upstream=np.zeros((0, 16), np.uint8))
    else:
        path.write_bytes(damage)
    with pytest.raises(PosteriorError, match=r"fitted-clips.npz: is damaged"):
        load(tmp_path / "p")
