"""Clips on the page: which are chosen, and their sounds, pictures and draws."""

import base64
import io
import shutil

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from bayes_panns.posterior import Calibration, load, save, save_calibration
from bayes_panns.report import Scoring, read_sources, render_page
from bayes_panns.report.page.cards import MediaBudget, make_cards
from bayes_panns.report.page.clips import REASONS, choose_clips


def cards(source, count):
    return make_cards(source, choose_clips(source.evaluation, count), MediaBudget(10**7))


def test_clips_are_chosen_for_the_right_reasons(make):
    # Clip 0: confident and wrong; 1: the draws disagree; 2: every draw is ambiguous; 3 and 4: confident and correct.
    sure, torn = [0.98, 0.01, 0.01], [0.34, 0.33, 0.33]
    draws = np.array(
        [[sure, [0.9, 0.05, 0.05], torn, sure, sure], [sure, [0.05, 0.9, 0.05], torn, sure, sure]], dtype=float
    )
    target = np.eye(3, dtype=bool)[[1, 0, 0, 0, 0]]
    made = make.evaluation(draws, target, ood=np.array([[torn, sure]] * 2, dtype=float))
    chosen = {reason: indices.tolist() for reason, indices in choose_clips(made, 1).items()}
    assert chosen == {"wrong": [0], "epistemic": [1], "aleatoric": [2], "ood-detected": [0], "ood-missed": [1]}
    # No clip twice, and correct ones are never among the wrong.
    chosen = choose_clips(made, 5)
    assert chosen["wrong"].tolist() == [0]
    known = [clip for key, indices in chosen.items() if not REASONS[key].ood for clip in indices.tolist()]
    assert sorted(known) == [0, 1, 2, 3, 4]


def test_a_card_has_the_sound_the_spectrogram_and_the_draws_of_its_clip(home, make):
    (source,) = read_sources(home / "flip", make.quick)
    found, sentence = cards(source, 2)
    assert sentence.startswith("Dots are the 4 draws of the weights")
    assert set(found) >= {"epistemic", "aleatoric", "ood-detected"}
    for reason, group in found.items():
        ood = REASONS[reason].ood
        clips = source.parts[0].ood_clips if ood else source.parts[0].clips
        made = source.evaluation.ood if ood else source.evaluation.uncertainty
        for card in group:
            index = clips.names.index(card.name)
            assert card.labels == (() if ood else (make.labels[source.evaluation.target[index].argmax()],))
            for row in card.rows:
                k = make.labels.index(row.label)
                # The draws are those of the evaluation, made again.
                assert np.mean(row.draws) == pytest.approx(made.probability[index, k], abs=1e-6)
                assert row.deviation == pytest.approx(np.std(row.draws), abs=1e-6)
                assert row.low <= row.mean <= row.high
                assert row.true == (row.label in card.labels)
            form, data = card.audio.removeprefix("data:").split(";base64,")
            sound, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
            assert (form, rate) == ("audio/mpeg", make.rate)
            waveform = clips.waveform([index])[0]
            assert len(sound) / rate == pytest.approx(card.seconds, abs=0.1)
            spectra = [np.abs(np.fft.rfft(wave, make.rate)) for wave in (sound, waveform)]
            # MP3 drops the inaudible parts of noise.
            assert ood or np.corrcoef(*spectra)[0, 1] > 0.9
            picture = imread(io.BytesIO(base64.b64decode(card.spectrogram.partition(",")[2])), format="webp")
            assert picture.shape[:2] == (64, 51)


def test_low_sounds_are_at_the_bottom_of_a_spectrogram(home, make):
    (source,) = read_sources(home / "flip", make.quick)
    found, _ = cards(source, 8)
    card = next(card for group in found.values() for card in group if card.labels == (make.evil,))
    picture = imread(io.BytesIO(base64.b64decode(card.spectrogram.partition(",")[2])), format="webp")
    brightest = picture[..., :3].sum(axis=(1, 2)).argmax()
    assert brightest > 40


def calibration(temperature, threshold):
    return Calibration(
        temperature=temperature, threshold=threshold, coverage=0.9, draws=4, clips=(5, 5), data=("other.h5",)
    )


def recalibrate(folder, temperature, threshold):
    posterior = load(folder)
    posterior.calibration = calibration(temperature, threshold)
    save_calibration(posterior)


def test_draws_have_the_temperature_of_the_evaluation_after_a_new_calibration(home, runs, make):
    # Evaluated without a calibration, calibrated since: the dots stay at temperature 1.
    recalibrate(runs / "flip", 5.0, 0.3)
    (source,) = read_sources(runs / "flip", make.quick)
    found, sentence = cards(source, 2)
    assert sentence.startswith("Dots are the 4 draws")
    rows = [row for reason in ("epistemic", "aleatoric") for card in found[reason] for row in card.rows]
    assert all(np.mean(row.draws) == pytest.approx(row.mean, abs=1e-6) for row in rows)
    # Evaluated with one calibration, calibrated again since: the dots keep the first temperature.
    shutil.rmtree(runs / "flip" / "evaluation")
    read_sources(runs / "flip", Scoring(stores=[str(home / "clips.h5")], folds=[3], ood=[home / "noise.h5"], draws=4))
    recalibrate(runs / "flip", 1.0, 0.6)
    (source,) = read_sources(runs / "flip", make.quick)
    assert source.evaluation.calibration == calibration(5.0, 0.3)
    found, sentence = cards(source, 2)
    assert sentence.startswith("Dots are the 4 draws")
    rows = [row for group in found.values() for card in group for row in card.rows]
    assert all(np.mean(row.draws) == pytest.approx(row.mean, abs=1e-6) for row in rows)
    assert max(row.mean for row in rows) < 0.9


def test_draws_of_another_posterior_are_not_shown(runs, make):
    posterior = load(runs / "flip")
    posterior.guide.load_state_dict({name: value * 1.5 for name, value in posterior.guide.state_dict().items()})
    save(posterior, runs / "flip" / "posterior")
    (source,) = read_sources(runs / "flip", make.quick)
    found, sentence = cards(source, 2)
    assert "does not reproduce the predictions that were scored" in sentence
    assert all(row.draws == () for group in found.values() for card in group for row in card.rows)
    assert make.page(render_page([source])).all("article")
