"""Sound files and folders as people have them: what is read, what is skipped, and what is said of it."""

import json
import os
import struct

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from bayes_panns.cli.main import main
from bayes_panns.clips import Store
from bayes_panns.posterior import load
from tests.cli.field import PACK, RATE, SECONDS, encoded, ends, labels_of, names_of, put, run, sound, tone


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
