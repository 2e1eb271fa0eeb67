"""Batches that other processes read ahead are those that this one would read, and so are their errors."""

import importlib
import os
import pickle
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from bayes_panns.clips import ClipSet, write
from bayes_panns.clips.ahead import Ahead, _Batches
from bayes_panns.clips.reader import ClipReader
from bayes_panns.core.errors import FitError, StoreError
from tests.harness.waiting import until

RATE, SAMPLES = 8000, 500


def sound(path, clips=12, seed=0, samples=SAMPLES):
    values = np.random.default_rng(seed).uniform(-1, 1, (clips, samples))
    write(path, values, np.eye(2, dtype=bool)[np.arange(clips) % 2], ("a", "b"), "one-of-k", RATE)
    return path


def floats(path, clips=12, seed=2):
    """A store of float32, as old packs of PANNs have it."""
    with h5py.File(path, "w") as file:
        file["audio_name"] = np.array([f"{n}.wav" for n in range(clips)], dtype="S8")
        file["waveform"] = np.random.default_rng(seed).uniform(-1, 1, (clips, SAMPLES)).astype(np.float32)
        file["target"] = np.eye(2, dtype=bool)[np.arange(clips) % 2]
        file.attrs["sample_rate"] = RATE
    return path


def planned(batches):
    """Batches of the only reader."""
    return [(0, index) for index in batches]


def damage(path, row):
    """Change a sample of a row."""
    with h5py.File(path, "r+") as file:
        file["waveform"][row, 7] += 1


class TestReader:
    def test_it_gives_what_the_stores_hold(self, tmp_path):
        clips = ClipSet([sound(tmp_path / "a.h5"), sound(tmp_path / "b.h5", seed=1)]).select(indices=[20, 3, 3, 11, 14])
        reader = ClipReader(clips)
        index = np.array([4, 0, 1, 0, 3])
        got = reader.read(index)
        assert got.dtype == torch.int16
        assert (clips.waveform(index) == np.divide(got.numpy(), np.float32(32767))).all()
        assert ClipReader(clips).places.tolist() == [20, 3, 3, 11, 14]
        with pytest.raises(IndexError, match="there is no clip 5"):
            reader.read(np.array([5]))

    def test_stores_of_different_types_are_read_as_floats(self, tmp_path):
        sound(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            del file["label_names"], file.attrs["sha256"], file.attrs["provenance"]
        clips = ClipSet([tmp_path / "a.h5", floats(tmp_path / "b.h5")])
        got = ClipReader(clips).read(np.arange(24))
        assert got.dtype == torch.float32
        assert (clips.waveform(np.arange(24)) == got.numpy()).all()
        assert (ClipReader(clips).read(np.arange(3)) == got[:3]).all()

    def test_what_is_sent_does_not_grow_with_the_clips(self, tmp_path):
        sizes = []
        for clips in (10, 300):
            reader = ClipReader(ClipSet(sound(tmp_path / f"{clips}.h5", clips, samples=10)))
            reader.share()
            kept = reader.__getstate__()
            # Shared memory is sent as a handle.
            tensors = {"_places", "_shared"}
            assert all(each.is_shared() for each in (kept["_places"], *kept["_shared"]))
            sizes.append(len(pickle.dumps({name: value for name, value in kept.items() if name not in tensors})))
        assert abs(sizes[1] - sizes[0]) < 16


def test_batches_of_all_readers_come_in_order_and_leave_the_random_state_alone(tmp_path):
    one, other = (
        ClipSet([sound(tmp_path / "a.h5"), sound(tmp_path / "b.h5", seed=1)]),
        ClipSet(floats(tmp_path / "c.h5")),
    )
    readers, plan = [ClipReader(one), ClipReader(other)], [(0, each) for each in torch.randperm(24).tensor_split(5)]
    plan.insert(3, (1, torch.tensor([7, 2])))
    before = torch.random.get_rng_state()
    with Ahead([ClipReader(one), ClipReader(other)], plan, workers=1) as ahead:
        # A launcher sends them to all processes, and this one has just begun.
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(ahead.processes[0], signum)
        for (number, index), values in zip(plan, ahead, strict=True):
            wanted = readers[number].read(index.numpy())
            assert values.dtype == wanted.dtype
            assert torch.equal(values, wanted)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.long
def test_a_damaged_clip_is_the_same_error_in_another_process(tmp_path):
    path = sound(tmp_path / "a.h5")
    damage(path, 8)
    with pytest.raises(StoreError) as here:
        ClipSet(path).waveform([8])
    read, plan = [], torch.arange(12).split(1)
    with pytest.raises(StoreError) as there, Ahead([ClipReader(ClipSet(path))], planned(plan), workers=2) as ahead:
        read.extend(ahead)
    assert str(there.value) == str(here.value)
    assert "\n" not in str(there.value)
    assert len(read) == 8
    assert "clip 'clip 8' is not what was packed" in str(there.value)


SLOW = """
import time
import torch

class Slow:
    shape, dtype = (3,), torch.int16

    def __init__(self, seconds, noted=None):
        self.seconds, self.noted = seconds, noted

    def read(self, index, found=None):
        time.sleep(self.seconds)
        if self.noted is not None:
            (self.noted / f"read-{index[0]}").touch()
        return found.copy_(torch.from_numpy(index)[:, None])
"""


@pytest.fixture
def slow_disk(tmp_path, monkeypatch):
    """A reader that takes a while, in a module that other processes can import."""
    (tmp_path / "slow_disk.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("slow_disk", None)
    return importlib.import_module("slow_disk").Slow


@pytest.mark.long
def test_a_slow_disk_is_read_while_the_fit_computes(slow_disk, tmp_path):
    plan = torch.arange(32).split(4)
    with Ahead([slow_disk(0.1, tmp_path)], planned(plan), workers=1) as ahead:
        next(ahead)
        # One batch is taken; the process is two batches ahead, and goes no further.
        until(lambda: len(list(tmp_path.glob("read-*"))) >= 3)
        time.sleep(0.3)
        assert {each.name for each in tmp_path.glob("read-*")} == {"read-0", "read-4", "read-8"}
        assert [values[0, 0].item() for values in ahead] == [4, 8, 12, 16, 20, 24, 28]


@pytest.mark.long
def test_a_process_that_is_killed_is_told_in_one_line(slow_disk):
    def read():
        with Ahead([slow_disk(0.01)], planned(torch.arange(4000).split(1)), workers=1) as ahead:
            for _ in ahead:
                os.kill(ahead.processes[0], signal.SIGKILL)

    with pytest.raises(FitError, match=r"^a process that reads clips ahead has ended by SIGKILL, .*--workers$") as told:
        read()
    assert "\n" not in str(told.value)


class Ended:
    """A process that has ended, or does so when it was asked so often; as :mod:`multiprocessing` has it."""

    def __init__(self, exitcode, asked=0):
        self._code, self._asked = exitcode, asked

    @property
    def exitcode(self):
        return self._code if self._asked <= 0 else None

    def is_alive(self):
        self._asked -= 1
        return self._asked >= 0

    def kill(self):
        self._asked, self._code = 0, -9

    def join(self):
        assert self._asked <= 0


class Iterator:
    """Torch's iterator, whose processes have died."""

    # From the handler of a signal, within whatever is under way.
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    def __next__(self):
        raise self.error

    def _shutdown_workers(self):
        raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 1.")


def ended(exitcode):
    ahead = Ahead.__new__(Ahead)
    ahead._found, ahead._processes, ahead._cramped = Iterator(), [Ended(exitcode)], False
    return ahead


@pytest.mark.parametrize(("code", "how"), [(-9, "by SIGKILL"), (-7, "by SIGBUS"), (3, "with exit code 3")])
def test_how_a_process_has_ended_is_told_even_in_the_words_of_another_error(code, how):
    def read():
        with ended(code) as ahead:
            try:
                next(ahead)
            except RuntimeError as error:
                raise StoreError("a.h5: is damaged (DataLoader worker)") from error

    with pytest.raises(
        FitError, match=f"^a process that reads clips ahead has ended {how}, perhaps for lack of memory"
    ):
        read()


@pytest.mark.parametrize(
    ("error", "code", "how"),
    [
        (EOFError(), -9, "by SIGKILL"),
        (ConnectionResetError(104, "Connection reset by peer"), -9, "by SIGKILL"),
        (RuntimeError("Pin memory thread exited unexpectedly"), -9, "by SIGKILL"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), 0, "with exit code 0"),
    ],
)
def test_a_process_whose_connections_close_before_it_has_ended_is_waited_for(error, code, how):
    ahead = ended(code)
    ahead._found.error, ahead._processes = error, [Ended(code, asked=3)]
    with pytest.raises(FitError, match=f"^a process that reads clips ahead has ended {how}, perhaps"), ahead:
        next(ahead)


def test_an_error_while_all_processes_live_is_itself(monkeypatch):
    monkeypatch.setattr("bayes_panns.clips.ahead._PATIENCE", 0)
    ahead = ended(0)
    ahead._found.error, ahead._processes = PermissionError("no"), [Ended(0, asked=9)]
    ahead._found._shutdown_workers = lambda: None
    with pytest.raises(PermissionError, match="no"), ahead:
        next(ahead)


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(11, "Resource temporarily unavailable"), FitError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_processes_that_were_started_before_an_error_are_ended(error, told, monkeypatch):
    started = Ended(None, asked=9)
    children = iter([[], [started]])

    def fails(loader):
        raise error

    monkeypatch.setattr("bayes_panns.clips.ahead.multiprocessing.active_children", lambda: next(children))
    monkeypatch.setattr("bayes_panns.clips.ahead.DataLoader.__iter__", fails)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(told):
        Ahead([], [], workers=1)
    assert started.exitcode == -signal.SIGKILL
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_process_that_dies_when_all_is_read_is_no_error():
    with ended(1):
        pass


class TestNoRoom:
    """A container may have next to nothing in /dev/shm, where a write beyond it would end the process."""

    @pytest.fixture(autouse=True)
    def _full(self, monkeypatch):
        def full(file, start, size):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("bayes_panns.clips.shared.os.posix_fallocate", full)

    def test_a_batch_is_copied_and_that_is_told_once(self, tmp_path, caplog):
        reader = ClipReader(ClipSet(sound(tmp_path / "a.h5")))
        batches = _Batches([reader])
        ahead = ended(0)
        ahead._found = iter([batches[0, np.arange(5)], batches[0, np.arange(5)]])
        for values in ahead:
            assert torch.equal(values, reader.read(np.arange(5)))
        assert len(caplog.messages) == 1
        assert "/dev/shm has no room for batches that are read ahead, so they are copied" in caplog.text

    def test_what_is_sent_once_needs_it(self, tmp_path):
        reader = ClipReader(ClipSet(sound(tmp_path / "a.h5")))
        with pytest.raises(FitError, match=r"^/dev/shm has no room .* of 12 clips, 0\.0 MB; .*\(--workers 0\)$"):
            reader.share()


SCRIPT = """
import os, signal, sys, time
import torch
from slow_disk import Slow
from bayes_panns.clips.ahead import Ahead, _Batches

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        # What is ignored would be ignored by the others too.
        signal.signal(number, lambda *given: None)
    with Ahead([Slow(0.05)], [(0, each) for each in torch.arange(30).split(1)], workers=1) as ahead:
        next(ahead)
        print(*ahead.processes, flush=True)
        sys.stdin.readline()
        print(sum(1 for _ in ahead), flush=True)
    print("ended", flush=True)
    with Ahead([Slow(0.05)], [(0, each) for each in torch.arange(3000).split(1)], workers=1) as ahead:
        next(ahead)
        print(*ahead.processes, flush=True)
        time.sleep(600)
"""


def runs(process):
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_signals_are_the_first_process_s_and_none_outlives_it(tmp_path, slow_disk):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    first = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    with first:
        others = [int(each) for each in first.stdout.readline().split()]
        # As a terminal, torchrun and SLURM send them: to all processes.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.killpg(first.pid, number)
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.stdout.readline() == "29\n"
        assert first.stdout.readline() == "ended\n"
        assert not any(map(runs, others))
        others = [int(each) for each in first.stdout.readline().split()]
        assert len(others) == 1
        first.kill()
        until(lambda: not any(map(runs, others)))
        # Nor has a signal ended what multiprocessing keeps its books with.
        assert "died unexpectedly" not in first.stderr.read()
