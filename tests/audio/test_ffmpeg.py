"""What libsndfile cannot read, through ffmpeg."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from bayes_panns.audio import ffmpeg
from bayes_panns.audio.files import read
from bayes_panns.audio.recording import Recording, duration
from bayes_panns.core.errors import AudioError
from tests.audio.encoded import RATE, encoded, sound

pytestmark = pytest.mark.skipif(ffmpeg.program() is None, reason="needs ffmpeg")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that makes a file of two seconds in a format of ffmpeg's."""
    folder = tmp_path_factory.mktemp("made")
    soundfile.write(folder / "plain.wav", np.stack([sound(2), 0.5 * sound(2)], axis=1), RATE)

    def make(name, *options):
        path = folder / name
        if not path.exists():
            command = [ffmpeg.program(), "-v", "error", "-nostdin", "-i", folder / "plain.wav", *options, path]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path

    return make


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.m4a", ()),
        ("a.webm", ("-c:a", "libopus")),
        ("a.mkv", ("-c:a", "flac")),
        ("a.wma", ()),
        ("a.ac3", ()),
        ("a.aac", ()),
        ("a.wv", ()),
        ("a.avi", ("-c:a", "libmp3lame")),
    ],
)
def test_formats(made, name, options):
    path = made(name, *options)
    waveform = read(path, RATE)
    assert len(waveform) == pytest.approx(2 * RATE, abs=0.15 * RATE)
    expected = 0.75 * sound(2)
    # Some codecs put a little in front.
    half = expected[: RATE // 2]
    place = np.correlate(waveform[: RATE // 2 + 3000].numpy(), half, "valid").argmax()
    assert np.corrcoef(waveform[place:][: RATE // 2], half)[0, 1] > 0.9
    assert duration(path) == len(waveform) / RATE
    assert len(read(path, RATE, start=1, seconds=0.5)) == RATE / 2


def test_a_truncated_file(made, tmp_path):
    content = made("a.mkv", "-c:a", "flac").read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
    with Recording(tmp_path / "half.mkv", RATE) as recording:
        samples = sum(map(len, recording))
    assert 0.5 * RATE < samples < 1.5 * RATE
    (note,) = recording.notes
    assert note.kind == "truncated"
    assert "it promises 2.00 s" in note.text


def test_what_ffmpeg_refuses_is_one_line(made, tmp_path):
    content = made("a.m4a").read_bytes()
    for name, broken in (("half.m4a", content[: len(content) // 2]), ("none.m4a", b"\0\0\0 ftypM4A " + bytes(999))):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(AudioError, match=r"is MP4 .*, which ffmpeg cannot read \(") as error:
            read(tmp_path / name, RATE)
        assert "\n" not in str(error.value)


def test_without_ffmpeg_the_message_says_so(made, monkeypatch):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    with pytest.raises(AudioError, match=r"is MP4 .* needs ffmpeg; install ffmpeg, or pip install 'bayes-panns\[ffmp"):
        read(made("a.m4a"), RATE)


@pytest.mark.parametrize("name", ["list.m3u8", "list.m4a", "list.ts", "list.mp3"])
@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:{secret}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{secret}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD><Period><AdaptationSet><BaseURL>{secret}</BaseURL></AdaptationSet></Period></MPD>',
    ],
)
def test_a_list_that_names_another_file_is_not_followed(made, tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text.format(secret=made("secret.ts", "-c:a", "aac")))
    with pytest.raises(AudioError, match="format not recognised"):
        read(path, RATE)


def test_ffmpeg_itself_is_kept_from_other_files(made, tmp_path):
    """Even a list under the first bytes of another format, and a demuxer for lists, open nothing but the file."""
    from bayes_panns.audio.decoders import Refused
    from bayes_panns.audio.ffmpeg import Ffmpeg
    from bayes_panns.audio.views import Source

    path = tmp_path / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:{made('secret.ts', '-c:a', 'aac')}\n")
    source = Source(path)
    with pytest.raises(Refused, match="cannot read"):
        Ffmpeg(source, "mov", "MP4")
    with pytest.raises(Refused, match="cannot read"):
        # Its segments would have to be read by a demuxer that is not among those allowed.
        Ffmpeg(source, "hls", "MP4")
    source.close()


def test_no_process_is_left(made, monkeypatch):
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with Recording(made("a.m4a"), RATE) as recording:
        next(iter(recording))
    blocks = iter(Recording(made("a.m4a"), RATE))
    next(blocks)
    blocks.close()
    assert [process.returncode is None for process in started] == [False, False]


def test_an_m4a_from_standard_input(made, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(made("a.m4a").read_bytes())))
    assert len(read("-", RATE)) == 2 * RATE


def test_a_codec_that_libsndfile_does_not_know_inside_a_container_that_it_knows(made):
    path = made("a.wav", "-c:a", "adpcm_swf", "-ar", "22050")
    assert len(read(path, RATE)) == pytest.approx(2 * RATE, rel=0.1)


def test_a_header_that_promises_much_is_not_believed(tmp_path):
    content = bytearray(encoded(sound(), "WAV"))
    content[22:24] = struct.pack("<H", 1024)
    (tmp_path / "wide.wav").write_bytes(content)
    assert len(read(tmp_path / "wide.wav", RATE)) == RATE // 1024
