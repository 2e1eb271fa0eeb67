"""Tables, stores and runs as people have them: what is read, what is refused, and what is said of it."""

import json
import shutil
import unicodedata

import h5py
import numpy as np
import pytest
import torch

from bayes_panns.clips import Store, Task, write
from bayes_panns.posterior import load
from tests.cli.field import LABELS, PACK, RATE, labels_of, run, sound, table, tone


def test_start_and_end_cut_the_labelled_part_out(here):
    wave = np.zeros(20 * RATE)
    wave[10 * RATE : 12 * RATE] = 0.5
    sound(here / "rec.wav", wave=wave, rate=RATE)
    sound(here / "quiet.wav", wave=0.001 * tone(3, RATE), rate=RATE)
    table(here / "t.csv", "file,labels,start,end", "rec.wav,beep,10.5,11", "quiet.wav,none,0,0.5")
    run("pack", "folder", "t.csv", "-o", "out.h5", *PACK)
    store = Store("out.h5")
    by_label = {
        labels_of("out.h5")[row.argmax()]: wave
        for row, wave in zip(store.target(), store.waveform([0, 1]), strict=True)
    }
    np.testing.assert_allclose(by_label["beep"], 0.5, atol=1e-3)
    assert np.abs(by_label["none"]).max() < 0.1


def test_a_column_that_is_not_understood_is_refused_by_a_list_of_the_known(here):
    sound(here / "a.wav")
    table(here / "t.csv", "file,labels,quality", "a.wav,dog,good")
    said = run("pack", "folder", "t.csv", "-o", "out.h5", code=1).stderr
    assert "'quality'" in said
    assert all(name in said for name in ("file", "labels", "fold", "source", "start", "end"))
    assert not (here / "out.h5").exists()


def test_labels_with_commas_are_hinted_at(here):
    sound(here / "1.wav")
    sound(here / "2.wav")
    table(here / "t.csv", "file,labels", '1.wav,"Guitar,Music"', "2.wav,Music")
    said = run("pack", "folder", "t.csv", "-o", "out.h5", *PACK).stderr
    assert "Guitar,Music" in said
    assert "warning" in said


def test_names_in_another_normal_form_or_case_are_found_or_named(here):
    sound(here / unicodedata.normalize("NFD", "café.wav"))
    sound(here / "b.wav")
    sound(here / "A.WAV")
    table(here / "t.csv", "file,labels", unicodedata.normalize("NFC", "café.wav") + ",dog", "b.wav,cat", "a.wav,dog")
    said = run("pack", "folder", "t.csv", "-o", "out.h5", *PACK).stderr
    assert len(Store("out.h5")) == 3, said


def test_a_table_of_another_name_is_called_what_it_is_not(here):
    said = run("pack", "folder", table(here / "tags.txt", "file,labels"), "-o", "out.h5", code=1).stderr
    assert "no such" not in said
    assert "tags.txt" in said


def test_a_fixed_set_of_labels_lets_a_test_set_lack_some(net, here):
    for label in ("high", "low"):
        sound(here / "in" / label / "a.wav")
    table(here / "labels.txt", *LABELS)
    run("pack", "folder", "in", "-o", "out.h5", "--labels", "labels.txt", *PACK)
    assert labels_of("out.h5") == list(LABELS)
    assert "cls/accuracy" in run("evaluate", net, "--data", "out.h5", "--draws", 0).stdout


def test_scores_are_of_the_labels_that_are_there(net, here):
    for label in ("high", "low"):
        sound(here / "in" / label / "a.wav")
    run("pack", "folder", "in", "-o", "out.h5", *PACK)
    result = run("evaluate", net, "--data", "out.h5", "--draws", 0)
    assert "lacks 1 of the posterior's 3 labels (mid)" in result.stderr
    assert "cls/accuracy" in result.stdout


# Stores, fits and results.


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """A multi-label store in which two of 20 clips have the one label."""
    path = tmp_path_factory.mktemp("rare") / "rare.h5"
    waves = np.stack([tone(0.5, RATE, seed=seed) for seed in range(20)])
    write(path, waves, np.arange(20)[:, None] < 2, ("owl",), Task.MULTI_LABEL, RATE, fold=np.arange(20) % 2)
    return path


QUICK = ("--set", "fit.epochs=1", "--set", "fit.batch_size=16")


def test_validation_clips_without_a_positive_are_no_end_of_a_fit(net, rare, here):
    run("finetune", "fixed-features", "--from", net, "--data", rare, "-o", "run", *QUICK)
    assert (here / "run" / "posterior" / "posterior.toml").is_file()
    lines = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines


def test_a_metric_that_a_fold_lacks_is_no_nan_in_the_results(net, rare, here):
    store = Store(rare)
    fold = np.arange(20) % 2 + 1
    target = store.target() & (fold != 2)[:, None]
    write("cv.h5", store.waveform(range(20)), target, ("owl",), Task.MULTI_LABEL, RATE, fold=fold)
    result = run(
        *("crossval", "fixed-features", "--from", net, "--data", "cv.h5", *QUICK),
        *("--set", "data.validation=0", "--draws", 2, "-o", "cv"),
    )

    def refuse(word):
        raise AssertionError(word)

    json.loads((here / "cv" / "results.json").read_text(), parse_constant=refuse)
    assert "cls/map" in result.stdout


def test_one_label_alone_is_said_before_a_fit(net, here):
    for index in range(3):
        sound(here / f"{index}.wav")
    table(here / "t.csv", "file,labels", "0.wav,dog", "1.wav,dog", "2.wav,dog")
    said = run("pack", "folder", "t.csv", "-o", "out.h5", *PACK).stderr
    assert "dog" in said
    refused = run("finetune", "fixed-features", "--from", net, "--data", "out.h5", "-o", "run", *QUICK, code=1)
    assert "single label 'dog'" in refused.stderr


def test_the_pack_of_panns_transfer_to_gtzan_is_read(here):
    with h5py.File("gtzan.h5", "w") as file:
        file["audio_name"] = np.array([f"blues.{index:05d}.wav".encode() for index in range(20)], dtype="S80")
        file["waveform"] = np.zeros((20, 64000), np.int16)
        file["target"] = np.eye(10, dtype=np.float32)[np.arange(20) % 10]
        file["fold"] = np.arange(20, dtype=np.int32) % 10 + 1
    shown = run("inspect", "gtzan.h5")
    assert "20" in shown.stdout
    assert "one-of-k" in shown.stdout


def test_samples_that_are_not_finite_are_named_by_their_clip(net, here):
    with h5py.File("old.h5", "w") as file:
        wave = np.full((6, 32000), 0.1, dtype=np.float32)
        wave[2, 5] = np.nan
        file["audio_name"] = np.array([f"Y{index:011d}.wav".encode() for index in range(6)])
        file["waveform"], file["target"] = wave, np.eye(6, 3).astype(bool)
        file.attrs["sample_rate"] = 32000
    said = run("pretrain", "scratch", "--data", "old.h5", "-o", "run", "--guide", "det", *QUICK, code=1).stderr
    assert "clip 'Y00000000002.wav' holds samples that are not finite" in said


def test_a_place_that_is_not_there_is_said_before_anything_is_tagged(here):
    sound(here / "good.wav")
    said = run("predict", "no-posterior", "good.wav", "-o", "nosuch/x.csv", code=1).stderr
    assert "the folder nosuch does not exist; make it first" in said


def test_a_temperature_of_few_and_easy_clips_is_warned_of(net, here):
    waves = np.stack([tone(0.5, RATE, seed=seed) for seed in range(8)])
    best = next(load(net).draws(torch.from_numpy(waves).float(), 0)).argmax(1).numpy()
    write("few.h5", waves, np.eye(3, dtype=bool)[best], LABELS, Task.ONE_OF_K, RATE)
    shutil.copytree(net, "run")
    said = run("calibrate", "run", "--data", "few.h5", "--coverage", 0.5, "--draws", 0).stderr
    assert "warning" in said
    assert load("run").calibration.temperature > 0.05


def test_a_fit_goes_on_with_more_epochs_and_by_another_path(net, here):
    waves = np.stack([tone(0.5, RATE, seed=seed) for seed in range(12)])
    target = np.eye(3, dtype=bool)[np.arange(12) % 3]
    write("clips.h5", waves, target, LABELS, Task.ONE_OF_K, RATE)
    given = ("finetune", "fixed-features", "--from", net)
    run(*given, "--data", "clips.h5", "-o", "run", "--set", "fit.epochs=1")
    said = run(*given, "--data", here / "clips.h5", "-o", here / "run", "--set", "fit.epochs=2", "--resume").stderr
    assert "fit.epochs rises from 1 to 2" in said
    waves[0] = 0
    write("clips.h5", waves, target[::-1], LABELS, Task.ONE_OF_K, RATE)
    again = (*given, "--data", "clips.h5", "-o", "run", "--set", "fit.epochs=3", "--resume")
    assert "clips.h5" in run(*again, code=1).stderr


def test_a_checkpoint_of_another_network_is_refused_in_a_line(here):
    """The keys of PANNs' Cnn14, with blocks missing."""
    tensors = {f"conv_block{block}.conv{layer}.weight": torch.zeros(2, 2, 3, 3) for block in (1, 2) for layer in (1, 2)}
    tensors |= {f"bn0.{name}": torch.zeros(64) for name in ("weight", "bias", "running_mean", "running_var")}
    tensors |= {"fc1.weight": torch.zeros(4, 4), "fc_audioset.weight": torch.zeros(527, 4)}
    torch.save({"model": tensors}, "Cnn14.pth")
    said = run("import", "panns", "Cnn14.pth", "-o", "out", code=1).stderr
    assert said.startswith("bayes-panns: Cnn14.pth: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("words", [("--window", "nan"), ("--hop", "inf"), ("--hop", "-0.1"), ("--window", "0")])
def test_lengths_of_windows_that_are_no_lengths_are_wrong_usage(words, here):
    assert "Invalid value" in run("predict", "no-posterior", "no.wav", *words, code=2).stderr


@pytest.mark.parametrize("out", ["set/dog/0.wav", "t.csv"])
def test_pack_does_not_write_onto_what_it_reads(here, out):
    for name in ("dog/0.wav", "cat/0.wav"):
        sound(here / "set" / name)
    table(here / "t.csv", "file,labels", "set/dog/0.wav,dog")
    before = (here / out).read_bytes()
    source = "t.csv" if out == "t.csv" else "set"
    assert "is one of the files to read" in run("pack", "folder", source, "-o", out, code=1).stderr
    assert (here / out).read_bytes() == before
