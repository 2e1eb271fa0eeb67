"""Files as people have them, through the commands: what is read, what is refused, and what is said of it."""

import io
import json
import os
import shutil
import struct
import unicodedata

import h5py
import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from bayes_panns.cli.main import main
from bayes_panns.clips import Store, Task, write
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.recipes import read_strategy

RATE = 8000
LABELS = ("high", "low", "mid")
SECONDS = 1.5
PACK = ("--seconds", 0.5, "--sample-rate", RATE)


def run(*arguments, code=0, charset="utf-8"):
    result = CliRunner(charset=charset).invoke(main, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A posterior that tags half a second of sound; its weights are random."""
    torch.manual_seed(0)
    made = Posterior.build(
        net="resnet14-narrow",
        labels=LABELS,
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=0.5,
        strategy=read_strategy("det-flip"),
    )
    folder = tmp_path_factory.mktemp("posterior") / "net"
    save(made, folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder in which commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tone(seconds=SECONDS, rate=44100, pitch=700, seed=0):
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return 0.3 * np.sin(2 * np.pi * pitch * time) * np.exp(-2 * (time % 0.5)) + 0.02 * noise


def encoded(form="WAV", subtype=None, wave=None, rate=44100, **options):
    out = io.BytesIO()
    soundfile.write(out, tone() if wave is None else wave, rate, format=form, subtype=subtype, **options)
    return bytearray(out.getvalue())


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(content))
    return path


def sound(path, **options):
    return put(path, encoded(**options))


def ends(net, *files, code=0):
    """Where the last window of each file ends, in seconds, and the messages."""
    result = run("predict", net, *files, "--draws", 0, "--format", "json", code=code)
    return {window["file"]: window["end"] for window in json.loads(result.stdout)["windows"]}, result.stderr


def labels_of(store):
    with h5py.File(store) as file:
        return [each.decode() for each in file["label_names"][:]]


def names_of(store):
    return sorted(Store(store).names)


# Sound files.


def flac_of_unknown_length():
    data = encoded("FLAC")
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return data


def flac_that_claims_terabytes():
    data = encoded("FLAC")
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    return data


def wav(riff, length):
    data = encoded()
    data[4:8], data[40:44] = struct.pack("<I", riff), struct.pack("<I", length)
    return data


def wav_of_a_crashed_64_bit_recorder():
    data = encoded("RF64")
    at = data.find(b"ds64") + 8
    data[at : at + 24] = bytes(24)
    return data


def au_of_unknown_length():
    data = encoded("AU", "PCM_16")
    data[8:12] = b"\xff" * 4
    return data


def caf_of_unknown_length():
    data = encoded("CAF", "PCM_16")
    at = data.find(b"data") + 4
    data[at : at + 8] = b"\xff" * 8
    return data


def mp3(**options):
    return encoded("MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.3, **options)


def mp3_without_its_index():
    data = mp3()
    at = max(data.find(b"Xing"), data.find(b"Info"))
    return data[: data.rfind(b"\xff\xfb", 0, at)] + data[data.find(b"\xff\xfb", at) :]


PLAIN = len(encoded()) - 44
LENGTHS = {
    "a.flac": (flac_of_unknown_length, SECONDS),
    "b.flac": (flac_that_claims_terabytes, SECONDS),
    "sox.wav": (lambda: wav(0x7FFFF024, 0x7FFFF000), SECONDS),
    "arecord.wav": (lambda: wav(0x80000024, 0x80000000), SECONDS),
    "ffmpeg.wav": (lambda: wav(0xFFFFFFFF, 0xFFFFFFFF), SECONDS),
    "crashed.wav": (lambda: wav(0, 0), SECONDS),
    "short-by-16.wav": (lambda: wav(PLAIN + 36, PLAIN + 16), SECONDS),
    "cut.wav": (lambda: encoded()[: -PLAIN // 3], SECONDS * 2 / 3),
    "rf64.wav": (wav_of_a_crashed_64_bit_recorder, SECONDS),
    "unknown.au": (au_of_unknown_length, SECONDS),
    "unknown.caf": (caf_of_unknown_length, SECONDS),
    "plain.mp3": (mp3, SECONDS),
    "no-index.mp3": (mp3_without_its_index, SECONDS),
    "joined.mp3": (lambda: mp3() + mp3(), 2 * SECONDS),
    "chained.ogg": (lambda: encoded("OGG", "VORBIS") + encoded("OGG", "VORBIS"), 2 * SECONDS),
    "cut.ogg": (lambda: (data := encoded("OGG", "VORBIS", tone(6)))[: len(data) // 2], None),
    "cut.flac": (lambda: (data := encoded("FLAC"))[: len(data) // 2], None),
}
"""What a header does not know or gets wrong, and the seconds of sound that are there; None where that is about half."""


def test_the_sound_that_is_there_is_read_to_its_end_whatever_the_header_says(net, here):
    for name, (make, _) in LENGTHS.items():
        put(here / name, make())
    found, said = ends(net, *LENGTHS)
    for name, (_, seconds) in LENGTHS.items():
        if seconds is None:
            assert 0.3 < found[name] < 5, name
        else:
            assert found[name] == pytest.approx(seconds, abs=0.08), name
    assert not any(line.startswith("skipped") for line in said.splitlines())
    for name in ("short-by-16.wav", "cut.wav", "cut.ogg", "cut.flac"):
        line = next((line for line in said.splitlines() if name in line), "")
        assert line.startswith("warning: ") is (name != "short-by-16.wav"), (name, said)
    for name in ("sox.wav", "crashed.wav", "plain.mp3", "no-index.mp3"):
        assert name not in said


def test_a_file_of_unknown_length_is_packed_like_any_other(here):
    put(here / "in" / "a" / "piped.flac", flac_of_unknown_length())
    sound(here / "in" / "b" / "plain.wav")
    assert "2 clips packed, 0 skipped" in run("pack", "folder", "in", "-o", "out.h5", *PACK).stderr
    store = Store("out.h5")
    np.testing.assert_allclose(store.waveform([0]), store.waveform([1]), atol=2e-3)


@pytest.mark.parametrize("rate", [1000, 11127, 44099, 44101, 250_007])
def test_any_rate_gives_the_sound_of_a_common_one(here, rate):
    wave = 0.3 * np.sin(2 * np.pi * 300 * np.arange(rate) / rate)
    sound(here / "in" / "odd.wav", wave=wave, rate=rate)
    run("pack", "folder", "in", "-o", "out.h5", "--seconds", 1, "--sample-rate", RATE)
    found = Store("out.h5").waveform([0])[0][800:-800]
    expected = 0.3 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)[800:-800]
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_file_that_is_no_sound_costs_only_itself_and_is_called_what_it_is(net, here):
    put(here / "page.mp3", b"<!doctype html><html>404</html>" * 50)
    put(here / "empty.ogg", b"")
    put(here / "page.m4a", b"\0\0\0 ftypM4A " + bytes(999))
    sound(here / "good.wav")
    found, said = ends(net, "page.mp3", "good.wav", "empty.ogg", "page.m4a", code=3)
    assert list(found) == ["good.wav"]
    assert (
        said.count("skipped page.mp3: ") == said.count("skipped empty.ogg: ") == said.count("skipped page.m4a: ") == 1
    )
    assert "no such file" not in said.lower()
    assert "does not exist" not in said.lower()
    assert "1 files tagged, 3 skipped" in said or "1 file tagged, 3 skipped" in said


def test_a_named_file_that_is_missing_is_exit_code_1(net, here):
    sound(here / "good.wav")
    result = run("predict", net, "nowhere.wav", "good.wav", "--draws", 0, code=1)
    assert "nowhere.wav: no such file" in result.stderr
    assert "skipped good.wav" not in result.stderr


def test_names_that_are_not_utf_8_are_read_and_shown(net, here):
    put(here / "in" / "a" / "plain.wav", encoded())
    odd = here / "in" / "b" / os.fsdecode(b"caf\xe9.wav")
    odd.parent.mkdir()
    odd.write_bytes(encoded())
    assert "2 clips packed, 0 skipped" in run("pack", "folder", "in", "-o", "out.h5", *PACK).stderr
    assert names_of("out.h5") == ["a/plain.wav", "b/caf\\xe9.wav"]
    for form in ("csv", "json", "table"):
        run("predict", net, "in", "--draws", 0, "--format", form, "-o", f"tags.{form}")
        assert "caf\\" in (here / f"tags.{form}").read_text(encoding="utf-8")
    assert "caf\\xe9" in run("predict", net, odd, "--draws", 0).stdout


@pytest.mark.parametrize("charset", ["cp1252", "ascii"])
def test_names_that_the_terminal_cannot_show_are_shown_as_it_can(net, here, charset):
    sound(here / "日本.wav")
    result = run("predict", net, "日本.wav", "--draws", 0, charset=charset)
    assert ".wav" in result.stdout
    assert "0-0.5" in result.stdout


def test_opposite_channels_silence_and_integer_scale_are_said(net, here):
    wave = tone()
    sound(here / "in" / "a" / "anti.wav", wave=np.stack([wave, -wave], axis=1))
    sound(here / "in" / "a" / "silent.wav", wave=0 * wave)
    sound(here / "in" / "b" / "integers.wav", subtype="FLOAT", wave=wave * 32767)
    sound(here / "in" / "b" / "plain.wav")
    for said in (
        ends(net, "in")[1],
        run("pack", "folder", "in", "-o", "out.h5", *PACK).stderr,
    ):
        for name, word in (("anti", "channel"), ("silent", "silen"), ("integers", "scale")):
            assert any(f"{name}.wav" in line and word in line for line in said.splitlines()), (name, said)
        assert "plain.wav" not in said
    left = run("predict", net, "in/a/anti.wav", "--draws", 0, "--channel", "left", "--format", "csv").stdout
    alone = sound(here / "left.wav", wave=wave)
    one = run("predict", net, alone.name, "--draws", 0, "--format", "csv").stdout
    assert [line.split(",")[1:] for line in left.splitlines()] == [line.split(",")[1:] for line in one.splitlines()]


def test_a_short_file_is_tagged_as_a_store_has_it(net, here):
    short = sound(here / "short.wav", wave=tone(0.2, RATE), rate=RATE)
    tags = json.loads(run("predict", net, short, "--draws", 0, "--format", "json").stdout)["windows"][0]
    padded = np.zeros(4000, dtype=np.float32)
    padded[:1600] = soundfile.read(short, dtype="float32")[0]
    expected = next(load(net).draws(torch.from_numpy(padded)[None], 0))[0]
    np.testing.assert_allclose(tags["probability"], expected.numpy(), atol=2e-4)


# Folders.


def test_no_class_vanishes_without_a_word(here):
    sound(here / "in" / "cat" / "a.wav")
    sound(here / "in" / "bird" / "a.wav")
    put(here / "in" / "dog" / "a.m4a", b"\0\0\0 ftypM4A " + bytes(999))
    put(here / "in" / "owl" / "a.xyz", bytes(99))
    put(here / "in" / "owl" / "b.xyz", bytes(99))
    said = run("pack", "folder", "in", "-o", "out.h5", *PACK, code=3).stderr
    assert "dog" in said
    assert ".xyz" in said
    assert "owl" in said


def test_labels_never_turn_into_none_without_a_word(here):
    sound(here / "in" / "cat" / "a.wav")
    put(here / "in" / "dog" / "a.xyz", bytes(99))
    result = CliRunner().invoke(main, ["pack", "folder", "in", "-o", "out.h5", *map(str, PACK)])
    assert result.exit_code == 1 or labels_of("out.h5") == ["cat", "dog"] or "no labels" in result.stderr
    assert "dog" in result.stderr


def test_links_to_folders_are_followed_once(here):
    sound(here / "elsewhere" / "a.wav")
    sound(here / "in" / "cat" / "a.wav")
    sound(here / "in" / "dog" / "a.wav")
    (here / "in" / "owl").symlink_to("../elsewhere")
    (here / "in" / "cat" / "loop").symlink_to("..")
    said = run("pack", "folder", "in", "-o", "out.h5", *PACK).stderr
    assert labels_of("out.h5") == ["cat", "dog", "owl"]
    assert "3 clips packed" in said


def test_a_folder_gives_all_that_is_read_when_it_is_named(here):
    for form, ending in (
        ("W64", "w64"),
        ("CAF", "caf"),
        ("AU", "au"),
        ("OGG", "oga"),
        ("AIFF", "aifc"),
        ("WAV", "WAV"),
    ):
        sound(here / "in" / f"a.{ending}", form=form)
    assert "6 clips packed, 0 skipped" in run("pack", "folder", "in", "-o", "out.h5", *PACK).stderr


# Tables of labels.


def table(path, *lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


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
