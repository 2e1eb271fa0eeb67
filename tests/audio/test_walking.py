import os
import unicodedata

import pytest

from bayes_panns.audio.walking import find, similar, walk
from bayes_panns.core.errors import AudioError


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder):
    return [path.relative_to(folder).as_posix() for path in walk(folder).files]


def test_every_ending_that_can_be_read_is_found(tmp_path):
    endings = (
        "aif",
        "aiff",
        "aifc",
        "au",
        "caf",
        "flac",
        "m4a",
        "mkv",
        "mov",
        "mp3",
        "mp4",
        "oga",
        "opus",
        "w64",
        "webm",
    )
    names = [f"a.{ending}" for ending in endings]
    files(tmp_path, *names, "b.WAV", "notes.txt", "cover.jpg", "more.txt", "README", ".hidden.wav", ".cache/x.wav")
    assert found(tmp_path) == sorted([*names, "b.WAV"])
    inside = walk(tmp_path)
    assert inside.others == {".txt": 2, ".jpg": 1, "": 1}
    assert inside.passed_over() == "passed over 4 files that are not sound: 2 .txt, 1 without an ending, 1 .jpg"


def test_what_is_passed_over_stays_on_one_line(tmp_path):
    files(tmp_path, "a.wav", "a.x\ny", *(f"a.{number}" for number in range(9)))
    assert "10 files" in walk(tmp_path).passed_over()
    assert "5 others" in walk(tmp_path).passed_over()
    assert "\n" not in walk(tmp_path).passed_over()


def test_links_to_folders_are_followed_once(tmp_path):
    files(tmp_path, "real/owl/a.wav", "top/cat/a.wav", "top/cat/deep/b.wav")
    top = tmp_path / "top"
    (top / "owl").symlink_to("../real/owl")
    (top / "cat" / "loop").symlink_to("..")
    (top / "kitten").symlink_to("cat")
    (top / "gone").symlink_to("nowhere")
    (top / "link.wav").symlink_to("../real/owl/a.wav")
    assert found(top) == ["cat/a.wav", "cat/deep/b.wav", "link.wav", "owl/a.wav"]
    assert "links to folders that are here anyway" in walk(top).passed_over()


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    """Root may read everything, so the system's answer is made here."""
    files(tmp_path, "a.wav", "b/b.wav")
    scan = os.scandir

    def refusing(folder):
        if os.fspath(folder) == str(tmp_path / "b"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert "b (Permission denied)" in walk(tmp_path).passed_over()


def test_nothing_found_says_what_is_there(tmp_path):
    files(tmp_path, "a.txt")
    with pytest.raises(AudioError, match=r"holds no sound file \(passed over 1 file that is not sound: 1 \.txt\)"):
        find(tmp_path)


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).touch()
    (tmp_path / os.fsdecode(b"x.\xe9")).touch()
    assert len(find(tmp_path)) == 1
    walk(tmp_path).passed_over().encode()


def test_similar_names(tmp_path):
    files(tmp_path, unicodedata.normalize("NFD", "Café.WAV"), "other.wav")
    assert [path.name for path in similar(tmp_path / "café.wav")] == [unicodedata.normalize("NFD", "Café.WAV")]
    assert similar(tmp_path / "no" / "café.wav") == []


def test_links_to_themselves_pipes_and_devices_hold_nothing_up(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "gone.wav").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.wav")
    found = walk(tmp_path)
    assert [path.name for path in found.files] == ["a.wav", "gone.wav", "loop.wav"]
    assert "pipe.wav (is a pipe or a device)" in found.passed_over()
