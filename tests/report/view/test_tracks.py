import numpy as np
import pytest

from bayes_panns.predictions.records import Record, RecordWriter
from bayes_panns.report.view import tracks
from bayes_panns.report.view.tracks import PIECE, Track
from tests.report.view.made import LABELS, windows


@pytest.fixture(scope="module")
def found():
    return windows(1000)


@pytest.fixture(scope="module")
def track(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("tracks") / "a.h5"
    with RecordWriter(path, labels=LABELS, file="a.wav", source=path) as writer:
        writer.add(found)
    with pytest.MonkeyPatch.context() as patch, Record.open(path) as record:
        patch.setattr(tracks, "_SLICE", 300)
        return Track.of(record)


def test_a_bin_from_near_is_a_window(track, found):
    piece = track.piece(0, 3, [4, 1])
    inside = slice(3 * PIECE, 1000)
    assert piece["start"] == found.start[inside].tolist()
    assert piece["end"] == found.end[inside].tolist()
    for name in ("probability", "low", "high"):
        assert np.array(piece[name]) / 1000 == pytest.approx(getattr(found, name)[inside][:, [4, 1]].T, abs=0.003)
    for name in ("aleatoric", "epistemic"):
        assert piece[name] == pytest.approx(getattr(found, name)[inside].sum(axis=1), rel=0.006)
    assert piece["outside"] == found.outside[inside].tolist()
    assert piece["left"] == found.left[inside].tolist()


def test_from_afar_no_peak_and_no_mark_is_lost(track, found):
    piece = track.piece(6, 0, [2])
    assert len(piece["start"]) == 16
    for index in range(16):
        group = slice(64 * index, min(1000, 64 * index + 64))
        best = found.probability[group, 2].argmax() + group.start
        for name in ("probability", "low", "high"):
            # Windows that are alike to a byte may stand for each other.
            assert piece[name][0][index] / 1000 == pytest.approx(getattr(found, name)[best, 2], abs=0.02)
        assert piece["epistemic"][index] == pytest.approx(found.epistemic[group].sum(axis=1).max(), rel=0.006)
        assert piece["outside"][index] == found.outside[group].any()
        assert (piece["start"][index], piece["end"][index]) == (found.start[group][0], found.end[group][-1])


def test_pieces_are_bounded_and_end(track):
    assert [len(track.piece(0, number, [0])["start"]) for number in range(5)] == [256, 256, 256, 232, 0]
    assert track.piece(0, 9, [0])["probability"] == []
    assert len(track.piece(1, 0, [])["start"]) == PIECE


def test_peaks_are_those_of_the_labels(track, found):
    assert track.peaks() == pytest.approx(found.probability.max(axis=0), abs=0.003)
    assert track.scales()["aleatoric"] == pytest.approx(found.aleatoric.sum(axis=1).max())
