import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from bayes_panns.core.errors import AudioError
from bayes_panns.report.view import tiles
from bayes_panns.report.view.tiles import COLUMNS, FRAMES, LEVELS, Tiles, span


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    """Twelve seconds of silence with a click of 5 ms at 2.0 s and at 11.5 s."""
    path = tmp_path_factory.mktemp("tiles") / "clicks.wav"
    sound = np.random.default_rng(0).normal(size=12 * 32000).astype(np.float32) * 1e-4
    for second in (2.0, 11.5):
        at = int(second * 32000)
        sound[at : at + 160] = np.random.default_rng(1).uniform(-0.9, 0.9, 160)
    soundfile.write(path, sound, 32000)
    return path


def light(media):
    """The brightness of each column."""
    with Image.open(io.BytesIO(media.content)) as image:
        return np.asarray(image.convert("L"), dtype=float).mean(axis=0)


def test_sounds_are_where_they_should_be_from_near_and_from_afar(clicks):
    made = Tiles()
    near = light(made.tile(clicks, 12, 0, 0))
    assert len(near) == COLUMNS
    assert near.argmax() / FRAMES == pytest.approx(2.0, abs=0.03)
    last = light(made.tile(clicks, 12, 0, 2))
    assert len(last) == round((12 - 2 * span(0)) * FRAMES)
    assert last.argmax() / FRAMES + 2 * span(0) == pytest.approx(11.5, abs=0.03)
    far = light(made.tile(clicks, 12, 3, 0))
    assert len(far) == 150
    assert sorted(np.argsort(far)[-2:] * 0.08) == pytest.approx([2.0, 11.5], abs=0.09)


def test_a_picture_is_made_once_and_memory_is_bounded(clicks, monkeypatch):
    made = Tiles()
    first = made.tile(clicks, 12, 0, 0)
    assert made.tile(clicks, 12, 0, 0) is first
    monkeypatch.setattr(tiles, "BYTES", len(first.content) + 1)
    made.tile(clicks, 12, 0, 1)
    assert made.tile(clicks, 12, 0, 0) is not first


def test_there_is_nothing_beyond_the_end_and_an_error_where_nothing_can_be_read(clicks, tmp_path):
    for level, number in ((0, 3), (0, -1), (LEVELS, 0), (-1, 0)):
        with pytest.raises(IndexError):
            Tiles().tile(clicks, 12, level, number)
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError):
        Tiles().tile(tmp_path / "a.wav", 12, 0, 0)


def test_background_is_dark_where_the_sounds_are_rare(tmp_path):
    # The one sound lies between the stretches from which the levels are taken.
    sound = np.random.default_rng(0).normal(size=120 * 32000).astype(np.float32) * 2e-3
    sound[95 * 32000 : 96 * 32000] *= 100
    soundfile.write(tmp_path / "rare.wav", sound, 32000)
    found = light(Tiles().tile(tmp_path / "rare.wav", 120, 0, 18))
    heard = found[int((95.2 - 18 * span(0)) * FRAMES) : int((95.8 - 18 * span(0)) * FRAMES)]
    assert np.median(found[:200]) < 100
    assert np.median(heard) - np.median(found[:200]) > 70
