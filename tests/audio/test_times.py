"""When a sound was recorded, by its name and its metadata."""

import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from bayes_panns.audio.times import recorded_at, time_in_name
from bayes_panns.core.choices import SoundNote


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def wav(path: Path, *, before: bytes = b"", after: bytes = b"") -> Path:
    """A WAV file with chunks of our own before and after its samples."""
    soundfile.write(path, np.zeros(7, dtype=np.int16), 8000)
    data = path.read_bytes()
    body = data[12:36] + before + data[36:] + after
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    return path


def comment(text: str) -> bytes:
    return chunk(b"LIST", b"INFO" + chunk(b"ICMT", text.encode() + b"\0") + chunk(b"IART", b"AudioMoth 0FE081F8"))


def bext(text: str) -> bytes:
    return chunk(b"bext", bytes(320) + text.encode() + bytes(264))


def guano(text: str) -> bytes:
    return chunk(b"guan", f"GUANO|Version: 1.0\nTimestamp: {text}\nNote: ü\n".encode())


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("20190220_191730.WAV", datetime(2019, 2, 20, 19, 17, 30)),
        ("24E144085F256349_20210203_101010.WAV", datetime(2021, 2, 3, 10, 10, 10)),
        ("5C6DA6CA.WAV", datetime(2019, 2, 20, 19, 13, 14, tzinfo=UTC)),
        ("SITE_20230412_053000.wav", datetime(2023, 4, 12, 5, 30)),
        ("SITE_0+1_20161231$235959.wav", datetime(2016, 12, 31, 23, 59, 59)),
        ("20161231T235959+1000_SITE.flac", datetime(2016, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=10)))),
        ("20161231T235959Z.wav", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2016-12-31_23-59-59.mp3", datetime(2016, 12, 31, 23, 59, 59)),
        # A number behind a time is no zone, and no part of it.
        ("S4A_20161231_235959-0500.wav", datetime(2016, 12, 31, 23, 59, 59)),
        ("20161231_235959_000.wav", datetime(2016, 12, 31, 23, 59, 59)),
        # The first digits are no time; the later ones are.
        ("99999999_999999_20161231_235959.wav", datetime(2016, 12, 31, 23, 59, 59)),
    ],
)
def test_names_of_recorders(name, time):
    found = time_in_name(name)
    assert found == time
    assert found.utcoffset() == time.utcoffset()


@pytest.mark.parametrize(
    "name",
    [
        "take 2.wav",
        "20190220.WAV",
        "DEADBEEF.wav",
        "20191320_191730.wav",
        "20190220_256060.wav",
        "19700101_000000.WAV",
        "",
    ],
)
def test_names_without_a_time(name):
    assert time_in_name(name) is None


@given(st.text("0129-_T$+Z.:Aé\udcff"))
def test_any_name_is_borne(name):
    time_in_name(name)


@given(st.datetimes(datetime(1980, 1, 1), datetime(2099, 1, 1)), st.sampled_from(["_", "T", "$"]))
def test_a_written_time_is_read_back(time, between):
    time = time.replace(microsecond=0)
    assert time_in_name(f"SITE_{time:%Y%m%d}{between}{time:%H%M%S}.wav") == time


@pytest.mark.parametrize(
    ("chunks", "time"),
    [
        (
            {
                "before": comment(
                    "Recorded at 19:17:30 20/02/2019 (UTC+1) by AudioMoth 0FE081F80FE081F0 at gain setting 2"
                )
            },
            "2019-02-20T19:17:30+01:00",
        ),
        (
            {"before": comment("Recorded at 19:17:30 20/02/2019 (UTC-2:30) by AudioMoth 0F")},
            "2019-02-20T19:17:30-02:30",
        ),
        ({"before": comment("Recorded at 19:17:30 20/02/2019 (UTC) by AudioMoth 0F")}, "2019-02-20T19:17:30+00:00"),
        ({"before": comment("Recorded at 19:17:30 20/02/2019 by AudioMoth 0F")}, "2019-02-20T19:17:30+00:00"),
        ({"after": guano("2017-05-02T21:19:30.5+02:00")}, "2017-05-02T21:19:30.500000+02:00"),
        ({"after": guano("2017-05-02T21:19:30Z")}, "2017-05-02T21:19:30+00:00"),
        ({"before": bext("2017-05-0221:19:30")}, "2017-05-02T21:19:30"),
        (
            {
                "after": chunk(
                    b"wamd", struct.pack("<HIH", 0, 2, 1) + struct.pack("<HI", 5, 25) + b"2014-04-02 22:59:14-05:00"
                )
            },
            "2014-04-02T22:59:14-05:00",
        ),
        # GUANO is the first that is believed.
        (
            {"before": bext("2017-05-0221:19:30"), "after": guano("2017-05-02 21:19:30+02:00")},
            "2017-05-02T21:19:30+02:00",
        ),
    ],
)
def test_metadata(tmp_path, chunks, time):
    found = recorded_at(wav(tmp_path / "night.wav", **chunks))
    assert found.time.isoformat() == time
    assert found.note is None


def test_behind_samples_whose_length_needs_64_bits(tmp_path):
    path = wav(tmp_path / "long.wav", after=guano("2017-05-02T21:19:30Z"))
    data = path.read_bytes()
    at = data.index(b"data")
    samples = int.from_bytes(data[at + 4 : at + 8], "little")
    long = chunk(b"ds64", struct.pack("<QQQI", len(data) + 36 - 8, samples, 7, 0))
    path.write_bytes(b"RF64\xff\xff\xff\xffWAVE" + long + data[12 : at + 4] + b"\xff" * 4 + data[at + 8 :])
    assert recorded_at(path).time == datetime(2017, 5, 2, 21, 19, 30, tzinfo=UTC)


def test_a_name_and_metadata_that_disagree(tmp_path):
    found = recorded_at(wav(tmp_path / "20200101_000000.wav", after=guano("2017-05-02T21:19:30+02:00")))
    assert found.time.isoformat() == "2017-05-02T21:19:30+02:00"
    assert found.note.kind == SoundNote.TWO_TIMES
    assert found.note.text == (
        "was recorded at 2017-05-02 21:19:30+02:00 by its GUANO metadata, which is taken, and at 2020-01-01 00:00:00 "
        "by its name"
    )


def test_a_name_and_metadata_that_agree(tmp_path):
    """By the clock, where one of them has no zone; and a clock's time gets the zone that is known."""
    comments = comment("Recorded at 19:17:31 20/02/2019 (UTC+1) by AudioMoth 0F")
    assert recorded_at(wav(tmp_path / "20190220_191730.WAV", before=comments)).note is None
    found = recorded_at(wav(tmp_path / "20170502T211930+0200.wav", before=bext("2017-05-0221:19:30")))
    assert (found.time.isoformat(), found.note) == ("2017-05-02T21:19:30+02:00", None)
    assert found.after(1.5).isoformat() == "2017-05-02T21:19:31.500000+02:00"


@pytest.mark.parametrize("text", ["", "no time", "Recorded at 99:99:99 99/99/2019 (UTC) by AudioMoth 0F"])
def test_metadata_without_a_time(tmp_path, text):
    assert recorded_at(wav(tmp_path / "a.wav", before=comment(text) + bext(text), after=guano(text))) is None


def test_what_cannot_be_read_is_judged_by_its_name(tmp_path):
    assert recorded_at(tmp_path / "missing.wav") is None
    assert recorded_at(tmp_path / "20190220_191730.wav").time == datetime(2019, 2, 20, 19, 17, 30)
    assert recorded_at("-") is None
    (tmp_path / "cut.wav").write_bytes(wav(tmp_path / "a.wav").read_bytes()[:20])
    assert recorded_at(tmp_path / "cut.wav") is None
