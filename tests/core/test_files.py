"""Files and folders are whole or not at all, whatever happens to their writers."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bayes_panns.core import files
from bayes_panns.core.errors import OutputError
from bayes_panns.core.files import (
    is_part,
    locked,
    locked_part,
    remove_abandoned,
    require_parent,
    require_space,
    whole_file,
    whole_folder,
    writes,
)
from bayes_panns.core.growing import growing_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_file(path, text):
    with whole_file(path) as fresh:
        fresh.write_text(text)


def write_folder(folder, name):
    with whole_folder(folder) as fresh:
        (fresh / name).write_text(name)


WRITER = """
import os, signal, sys, time
from pathlib import Path
from bayes_panns.core.files import whole_file, whole_folder

kind, path, *special = sys.argv[1:]
path = Path(path)
if special == ["exit on SIGTERM"]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if special == ["crash between the renames"]:
    rename = Path.rename
    Path.rename = lambda self, target: os._exit(9) if Path(target) == path else rename(self, target)
with {"file": whole_file, "folder": whole_folder}[kind](path) as fresh:
    (fresh / "half" if kind == "folder" else fresh).write_text("half")
    print("ready", flush=True)
    if special != ["crash between the renames"]:
        time.sleep(60)
"""


@contextmanager
def writer(kind, path, *special):
    """Another process, in the middle of writing ``path``."""
    command = [sys.executable, "-c", WRITER, kind, str(path), *special]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as fresh:
        assert fresh.name == "a.txt"
        fresh.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_failure_leaves_what_was_there(tmp_path):
    path, folder = tmp_path / "a.txt", tmp_path / "b"
    path.write_text("old")
    folder.mkdir()
    (folder / "old").touch()

    def fail():
        with whole_file(path) as fresh, whole_folder(folder) as filled:
            fresh.write_text("half")
            (filled / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["a.txt", "b", "old"]


def test_a_folder_replaces_the_one_before(tmp_path):
    folder = tmp_path / "deep" / "b"
    for name in ("first", "second"):
        write_folder(folder, name)
        assert names(folder) == [name]
    assert names(folder.parent) == ["b"]


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_write_removes_what_a_killed_writer_left(kind, number, tmp_path):
    path = tmp_path / "result.1"
    with writer(kind, path) as process:
        (part,) = names(tmp_path)
        process.send_signal(number)
        process.wait()
    assert names(tmp_path) == [part]
    write = write_file if kind == "file" else write_folder
    write(path, "whole")
    assert names(tmp_path) == ["result.1"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_process_that_turns_sigterm_into_an_exit_leaves_nothing(kind, tmp_path):
    with writer(kind, tmp_path / "result", "exit on SIGTERM") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_writer_that_is_alive_is_left_alone(kind, tmp_path):
    path = tmp_path / "result"
    write = write_file if kind == "file" else write_folder
    whole = whole_file if kind == "file" else whole_folder
    with whole(path) as fresh:
        (fresh / "late" if kind == "folder" else fresh).write_text("late")
        write(path, "early")
        assert (path / "early" if kind == "folder" else path).read_text() == "early"
    # The one that ends last wins.
    assert (path / "late" if kind == "folder" else path).read_text() == "late"
    assert names(tmp_path) == ["result"]
    with writer(kind, path):
        write(path, "other")
        assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_many_writers_of_one_place_all_succeed(write, tmp_path):
    path = tmp_path / "result"
    texts = [f"writer {number}" for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write(path, text), texts))
    if write is write_file:
        assert path.read_text() in texts
    else:
        (only,) = path.iterdir()
        assert only.read_text() == only.name
    assert names(tmp_path) == ["result"]


def test_a_part_that_another_writer_removes_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    path, opened = tmp_path / "a.txt", []

    def open_after_removal(part, flags):
        opened.append(part)
        if len(opened) == 1:
            part.rmdir()
        return os.open(part, flags)

    monkeypatch.setattr(files, "os", type("Os", (), {**vars(os), "open": staticmethod(open_after_removal)}))
    write_file(path, "new")
    assert opened[0] != opened[1]
    assert path.read_text() == "new"


def test_a_crash_between_the_two_renames_is_mended_by_the_next_write(tmp_path):
    folder = tmp_path / "posterior"
    write_folder(folder, "first")
    with writer("folder", folder, "crash between the renames") as process:
        assert process.wait() == 9
    assert not folder.exists()
    assert len(names(tmp_path)) == 2
    # Another folder's name begins alike, and must not get it.
    write_folder(tmp_path / "post", "other")
    with pytest.raises(RuntimeError), whole_folder(folder):
        raise RuntimeError
    assert names(folder) == ["first"]
    assert names(tmp_path) == ["post", "posterior"]


def test_the_old_folder_of_another_name_is_put_back_there(tmp_path):
    """``.a.1.<random>.old`` belongs to ``a.1``, not to ``a``."""
    old = tmp_path / ".a.1.0123456789ab.old"
    old.mkdir()
    (old / "kept").touch()
    write_folder(tmp_path / "a", "new")
    assert names(tmp_path / "a") == ["new"]
    assert names(tmp_path / "a.1") == ["kept"]
    write_folder(tmp_path / "a", "newer")
    assert names(tmp_path / "a.1") == ["kept"]


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_are_those_of_the_umask(umask, file_mode, folder_mode, tmp_path):
    before = os.umask(umask)
    try:
        write_file(tmp_path / "a.txt", "new")
        write_folder(tmp_path / "b", "new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == file_mode
    assert (tmp_path / "b").stat().st_mode & 0o777 == folder_mode
    assert (tmp_path / "b" / "new").stat().st_mode & 0o777 == file_mode


def test_a_symbolic_link_stays_one(tmp_path):
    for name in ("disk", "runs"):
        (tmp_path / name).mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "disk" / "folder")
    (tmp_path / "runs" / "link.txt").symlink_to(tmp_path / "disk" / "a.txt")
    for name in ("first", "second"):
        write_folder(tmp_path / "runs" / "link", name)
        write_file(tmp_path / "runs" / "link.txt", name)
    assert (tmp_path / "runs" / "link").is_symlink()
    assert names(tmp_path / "disk") == ["a.txt", "folder"]
    assert names(tmp_path / "disk" / "folder") == ["second"]
    assert (tmp_path / "disk" / "a.txt").read_text() == "second"
    assert names(tmp_path / "runs") == ["link", "link.txt"]


@pytest.mark.parametrize("name", ["a*b", "a[1]", "what?"])
def test_names_with_wildcards_are_names(name, tmp_path):
    with writer("file", tmp_path / name):
        pass
    write_file(tmp_path / name, "new")
    assert names(tmp_path) == [name]


def test_a_file_in_the_place_of_a_folder_is_kept(tmp_path):
    place = tmp_path / "a"
    place.write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        write_folder(place, "new")
    assert place.read_text() == "mine"


def test_a_file_in_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "missing" / "a.txt", "new")
    assert names(tmp_path) == []


def test_a_place_is_checked_before_the_work(tmp_path):
    require_parent(tmp_path / "new.txt")
    (tmp_path / "new.txt").touch()
    require_parent(tmp_path / "new.txt")
    with pytest.raises(OutputError, match="is a folder; name the file to write"):
        require_parent(tmp_path)
    with pytest.raises(OutputError, match=r"the folder .*missing does not exist; make it first"):
        require_parent(tmp_path / "missing" / "new.txt")
    with pytest.raises(OutputError, match="does not exist"):
        require_parent(tmp_path / "new.txt" / "below-a-file")


class Full:
    """Stands in for a full disk: ``free`` bytes are left."""

    def __init__(self, monkeypatch, free=0):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 1 << 30, free))


FULL = "the disk is full; free some space, or write elsewhere"


def of_rust(path):
    raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")


def of_hdf5(path):
    raise RuntimeError("Can't decrement id ref count (file write failed, errno = 28, error message = 'No space')")


def of_python(path):
    raise OSError(errno.ENOSPC, "No space left on device")


def of_a_file_inside(path):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def of_torch(path):
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 (as torch does)


@pytest.mark.parametrize("fails", [of_rust, of_hdf5, of_python, of_a_file_inside, of_torch])
@pytest.mark.parametrize("kind", [whole_file, whole_folder])
def test_a_full_disk_is_one_line_that_names_the_place(kind, fails, tmp_path):
    with pytest.raises(OSError, match=FULL) as caught, kind(tmp_path / "a") as fresh:
        fails(fresh)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert names(tmp_path) == []


def test_a_library_that_hides_the_reason_is_seen_through(tmp_path, monkeypatch):
    """Torch's own writer of files says nothing of the disk."""

    def no_room(self, *arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    def write():
        with whole_file(tmp_path / "a"):
            monkeypatch.setattr(files.Path, "open", no_room)
            raise RuntimeError("unexpected pos 576 vs 534")

    with pytest.raises(OSError, match=FULL):
        write()


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), whole_file(tmp_path / "a"):
        raise RuntimeError("a bug")
    with pytest.raises(OutputError), whole_file(tmp_path / "a"):
        raise OutputError("one line already")
    other = str(tmp_path / "read from here")
    with pytest.raises(OSError, match="read from here"), writes(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device", other)
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named_without_its_part(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / "none" / "a"):
        pass
    assert caught.value.filename == str(tmp_path / "none" / "a")


def test_room_is_checked_before_a_library_that_needs_it(tmp_path, monkeypatch):
    Full(monkeypatch, free=1000)
    require_space(tmp_path / "a", 1000)
    with pytest.raises(OSError, match=FULL):
        require_space(tmp_path / "a", 1001)


def test_the_next_write_into_a_folder_removes_what_writers_of_other_files_left(tmp_path):
    with writer("file", tmp_path / "a") as killed:
        killed.kill()
        killed.wait()
    (tmp_path / ".of the user.part").touch()
    (left,) = [name for name in names(tmp_path) if name.startswith(".a.")]
    assert is_part(tmp_path / left)
    assert not is_part(tmp_path / ".of the user.part")
    write_file(tmp_path / "b", "b")
    assert names(tmp_path) == [".of the user.part", "b"]


def test_parts_of_writers_that_are_alive_stay(tmp_path):
    with writer("file", tmp_path / "a"):
        remove_abandoned(tmp_path)
        assert len(names(tmp_path)) == 1


def test_locks_are_for_one_or_shared(tmp_path):
    with locked(tmp_path, shared=True) as first, locked(tmp_path, shared=True) as second, locked(tmp_path) as alone:
        assert (first, second, alone) == (True, True, False)
    with locked(tmp_path) as alone, locked(tmp_path, shared=True) as shared:
        assert (alone, shared) == (True, False)


@pytest.fixture
def ended_meanwhile(tmp_path, monkeypatch):
    """The process that has ``a.part`` puts it in its place after we have opened it, and before we have locked it."""
    (tmp_path / "a.part").write_text("the other's")
    flock = files.fcntl.flock

    def late(descriptor, kind):
        monkeypatch.setattr(files.fcntl, "flock", flock)
        (tmp_path / "a.part").rename(tmp_path / "a")
        flock(descriptor, kind)

    monkeypatch.setattr(files.fcntl, "flock", late)
    return tmp_path


def test_a_lock_is_of_what_is_there_now(ended_meanwhile):
    part = ended_meanwhile / "a.part"
    with locked_part(part) as ours, locked(part) as others:
        assert (ours, others) == (True, False)
    assert (ended_meanwhile / "a").read_text() == "the other's"


def test_results_that_another_process_has_just_ended_are_not_written_into(ended_meanwhile):
    with growing_file(ended_meanwhile / "a") as file:
        assert (ended_meanwhile / "a").read_text() == "the other's"
        file.write("ours")
    assert (ended_meanwhile / "a").read_text() == "ours"
    assert names(ended_meanwhile) == ["a"]


def test_results_are_in_their_place_before_another_process_may_write(tmp_path, monkeypatch):
    replace, free = Path.replace, []

    def noted(part, target):
        with locked(part) as ours:
            free.append(ours)
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", noted)
    with growing_file(tmp_path / "a") as file:
        file.write("whole")
    assert free == [False]
