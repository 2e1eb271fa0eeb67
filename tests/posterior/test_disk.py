"""What is on disk beside the weights: the header's values, the clips of the fit, and files of other people."""

import datetime
import random
import re
import tomllib

import numpy as np
import pytest
import tomli_w
import torch

from bayes_panns.clips import Task
from bayes_panns.core.errors import PosteriorError
from bayes_panns.posterior import FittedClips, Posterior, load, read_header, save, save_calibration
from bayes_panns.posterior.calibration import Calibration
from bayes_panns.posterior.disk import verify
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
        ("sample_rate", 10**12),
        ("provenance", {"epochs": "many"}),
        ("provenance", {"data": 5}),
        ("provenance", {"upstream": {"folder": 4}}),
        ("provenance", {"weights": 0}),
        (
            "calibration",
            {"temperature": 1e-300, "threshold": 0, "coverage": 0.5, "draws": 1, "clips": [1, 1], "data": []},
        ),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path, key, value):
    save(posterior_of(), tmp_path / "p")
    path = tmp_path / "p" / "posterior.toml"
    path.write_text(tomli_w.dumps({**tomllib.loads(path.read_text()), key: value}))
    with pytest.raises(PosteriorError, match=rf"posterior.toml: is damaged: {key}") as error:
        load(tmp_path / "p")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("clip_seconds", 80000.0, "clips of 80000 s are longer than"),
        ("provenance", {"when": datetime.date(2024, 1, 1)}, "it holds the date or time 2024-01-01"),
    ],
)
def test_headers_that_would_fill_the_memory_or_hold_dates_are_refused(tmp_path, key, value, message):
    save(posterior_of(), tmp_path / "p")
    path = tmp_path / "p" / "posterior.toml"
    path.write_text(tomli_w.dumps({**tomllib.loads(path.read_text()), key: value}))
    with pytest.raises(PosteriorError, match=rf"posterior.toml: is damaged: {message}"):
        load(tmp_path / "p")


def test_what_is_not_finite_is_left_out_of_a_posterior_that_is_saved_again(tmp_path):
    save(posterior_of(), tmp_path / "p")
    path = tmp_path / "p" / "posterior.toml"
    header = tomllib.loads(path.read_text())
    del header["digest"]
    header |= {
        "provenance": {"steps": 3, "upstream": {"folder": "a", "x": float("nan")}},
        "metrics": {"a": float("inf")},
    }
    path.write_text(tomli_w.dumps(header))
    posterior = load(tmp_path / "p")
    assert posterior.provenance == {"steps": 3, "upstream": {"folder": "a"}}
    assert posterior.metrics == {}
    save(posterior, tmp_path / "again")


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
    assert read_header(tmp_path / "empty")["format_version"] == 8


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


def unseal(folder):
    """As headers before format 7 are: with nothing to check them against."""
    table = tomllib.loads((folder / "posterior.toml").read_text())
    kept = {key: value for key, value in table.items() if key not in ("digest", "clips_sha256")}
    (folder / "posterior.toml").write_text(tomli_w.dumps(kept | {"format_version": 6}))


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_damaged_list_of_clips_is_told(tmp_path, damage):
    posterior = posterior_of()
    posterior.fitted_clips = FittedClips.of([b"c" * 32])
    save(posterior, tmp_path / "p")
    unseal(tmp_path / "p")
    path = tmp_path / "p" / "fitted-clips.npz"
    if damage is None:
        np.savez(path, own=np.zeros((3, 8), np.uint8), upstream=np.zeros((0, 16), np.uint8))
    else:
        path.write_bytes(damage)
    with pytest.raises(PosteriorError, match=r"fitted-clips.npz: is damaged"):
        load(tmp_path / "p")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"cat",\n    "dog"', '"dog",\n    "cat"'),
        lambda text: text.replace("sample_rate = 8000", "sample_rate = 16000"),
        lambda text: text.replace('task = "one-of-k"', 'task = "multi-label"'),
        lambda text: text.replace("clip_seconds = 0.5", "clip_seconds = 1.5"),
        lambda text: text.replace('short_clips = "pad"', 'short_clips = "own-length"'),
        lambda text: text.replace("mean = 0.25", "mean = 0.75"),
    ],
)
def test_a_changed_header_is_refused(tmp_path, change):
    posterior = posterior_of()
    posterior.metrics = {"mean": 0.25}
    save(posterior, tmp_path / "p")
    path = tmp_path / "p" / "posterior.toml"
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(PosteriorError, match=r"posterior.toml: it was changed by hand or damaged: .*delete its line"):
        load(tmp_path / "p")
    path.write_text(re.sub('digest = ".*"\n', "", changed))
    load(tmp_path / "p")


def test_a_posterior_may_be_written_in_another_way_moved_and_calibrated(tmp_path):
    posterior = posterior_of()
    posterior.fitted_clips = FittedClips.of([b"c" * 32])
    save(posterior, tmp_path / "p")
    header = tmp_path / "p" / "posterior.toml"
    header.write_text("# mine\n" + tomli_w.dumps(dict(reversed(tomllib.loads(header.read_text()).items()))))
    (tmp_path / "p").rename(tmp_path / "q")
    loaded = load(tmp_path / "q")
    loaded.calibration = Calibration(
        temperature=2.0, threshold=0.1, coverage=0.9, draws=2, clips=(3, 3), data=("a.h5",)
    )
    save_calibration(loaded)
    assert load(tmp_path / "q").calibration == loaded.calibration
    verify(tmp_path / "q")


def test_lists_of_clips_are_those_of_the_fit(tmp_path):
    posterior = posterior_of()
    posterior.fitted_clips = FittedClips.of([b"c" * 32])
    save(posterior, tmp_path / "p")
    path = tmp_path / "p" / "fitted-clips.npz"
    FittedClips.of([b"d" * 32]).save(path)
    for read in (load, verify):
        with pytest.raises(PosteriorError, match=r"fitted-clips.npz: is damaged or truncated"):
            read(tmp_path / "p")
    path.unlink()
    with pytest.raises(PosteriorError, match=r"fitted-clips.npz: is missing; the posterior is not complete"):
        load(tmp_path / "p")


def test_a_header_of_a_network_that_its_weights_do_not_fill_is_refused_before_it_is_built(tmp_path):
    save(posterior_of(), tmp_path / "p")
    unseal(tmp_path / "p")
    path = tmp_path / "p" / "posterior.toml"
    table = tomllib.loads(path.read_text())
    table |= {
        "net": "embeddings-1000000",
        "sample_rate": 0,
        "clip_seconds": 0.0,
        "labels": [str(n) for n in range(9999)],
    }
    path.write_text(tomli_w.dumps(table))
    with pytest.raises(
        PosteriorError, match=r"its network has \d+ bytes of weights, and guide.safetensors is far small"
    ):
        load(tmp_path / "p")


@pytest.mark.parametrize("text", ["x = " + "[" * 10**5, "#" * (2**24 + 1)])
def test_a_header_that_is_too_deep_or_too_large_is_refused(tmp_path, text):
    (tmp_path / "posterior.toml").write_text(text)
    with pytest.raises(PosteriorError, match=r"posterior.toml: is damaged"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["posterior.toml", "guide.safetensors", "fitted-clips.npz"])
def test_a_flipped_bit_is_refused(tmp_path, name):
    """Or it changes how the header is written and not what it means."""
    posterior = posterior_of()
    posterior.fitted_clips = FittedClips.of([b"c" * 32])
    save(posterior, tmp_path / "p")
    path, chosen = tmp_path / "p" / name, random.Random(0)
    whole, before = path.read_bytes(), read_header(tmp_path / "p")
    for _ in range(50):
        changed = bytearray(whole)
        changed[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.write_bytes(changed)
        try:
            verify(tmp_path / "p")
        except PosteriorError:
            continue
        assert read_header(tmp_path / "p") == before
        assert name == "posterior.toml"
