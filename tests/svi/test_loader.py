"""A fit is the same to the last bit however its clips are read."""

import os
import signal
from itertools import islice

import h5py
import numpy as np
import pytest
import torch

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import BayesianNet, OneOfK, Strategy, guide_from_strategy
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.clips.ahead import DEEP
from bayes_panns.core.errors import StoreError
from bayes_panns.core.launch import Launch
from bayes_panns.nets import build
from bayes_panns.svi import METRICS, Features, Fit, FitSettings, Running, read_metrics
from bayes_panns.svi.feature_file import FeatureFile
from bayes_panns.svi.loader import Loader, default_workers

RATE = 8000


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """24 clips of half a second in two stores."""
    folder = tmp_path_factory.mktemp("stores")
    paths = [folder / "a.h5", folder / "b.h5"]
    for seed, path in enumerate(paths):
        sound = np.random.default_rng(seed).uniform(-0.3, 0.3, (12, RATE // 2))
        write(path, sound, np.eye(3, dtype=bool)[np.arange(12) % 3], ("a", "b", "c"), Task.ONE_OF_K, RATE)
    return paths


def job(stores, folder, *, workers=0, keep="none", validation=False, **settings):
    folder.mkdir(exist_ok=True)
    chosen = FitSettings(**{"epochs": 2, "batch_size": 8, "spec_augment": False, "features": keep, **settings})
    torch.manual_seed(chosen.seed)
    front_end = LogMel(RATE)
    model = BayesianNet.from_strategy(build("resnet14-narrow", 3), Strategy(), OneOfK(), clips=24, front_end=front_end)
    clips = ClipSet(stores)
    file = FeatureFile(folder / "features", front_end, clips.samples) if keep == "disk" else None
    data = Features(clips, front_end, Task.ONE_OF_K, keep=keep, file=file)
    guide = guide_from_strategy(model, Strategy())
    held = None
    if validation:
        held = Features(clips.select(indices=np.arange(20)), front_end, Task.ONE_OF_K, keep=keep, file=file)
    return Fit(model, guide, data, chosen, folder, validation=held, running=Running(workers=workers))


def state(fit):
    return {**fit.model.state_dict(), **fit.guide.state_dict()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def interrupted_at(fit, number):
    """Run until a step, as Ctrl-C ends it."""
    step = fit._step

    def interrupt(index):
        if fit.step == number:
            os.kill(os.getpid(), signal.SIGINT)
        return step(index)

    fit._step = interrupt
    assert not fit.run()


def test_int16_batches_are_the_store_s_waveforms_and_targets_are_floats(stores):
    clips, index = ClipSet(stores), torch.tensor([13, 2, 2])
    values, target = Features(clips, LogMel(RATE), Task.MULTI_LABEL, keep="none").batch(index)
    assert values.dtype == torch.int16
    assert target.tolist() == clips.target()[index].astype(float).tolist()
    assert target.dtype == torch.float32
    model = BayesianNet.from_strategy(build("resnet14-narrow", 3), Strategy(), OneOfK(), front_end=LogMel(RATE))
    assert torch.equal(model._features(values), model.front_end(torch.from_numpy(clips.waveform(index))))


@pytest.mark.long
def test_a_fit_with_a_worker_that_is_resumed_without_is_the_fit_that_never_stopped(stores, tmp_path):
    whole = job(stores, tmp_path / "whole", mixup=True, epochs=1)
    whole.run()
    first = job(stores, tmp_path / "parts", mixup=True, epochs=1, workers=1)
    interrupted_at(first, 1)
    assert first._loader.workers == 1
    second = job(stores, tmp_path / "parts", mixup=True, epochs=1)
    second.load_checkpoint()
    assert second.step == 2
    assert second.run()
    assert same(state(whole), state(second))


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({"sampling": "balanced", "validation": True, "start": "fisher"}, 2),
        ({"sampling": "blocks", "block": 3, "mixup": True}, 1),
        ({"keep": "disk", "sampling": "alternate"}, 1),
    ],
)
def test_workers_change_no_bit(stores, tmp_path, options, workers):
    fits = [job(stores, tmp_path / str(each), workers=each, **options) for each in (0, workers)]
    for fit in fits:
        assert fit.run()
    assert fits[1]._loader.workers == workers
    assert same(state(fits[0]), state(fits[1]))


class Here:
    """Stands in for processes that read ahead: it reads in this one, in the order of the plan."""

    def __init__(self, readers, batches, *, workers, pinned=False):
        self._left = (readers[number].read(index.numpy()) for number, index in batches)
        self._found = list(islice(self._left, DEEP * workers))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __iter__(self):
        while self._found:
            yield next(self)

    def __next__(self):
        self._found += islice(self._left, 1)
        return self._found.pop(0)


@pytest.mark.parametrize("keep", ["none", pytest.param("disk", marks=pytest.mark.long)])
def test_every_pass_over_the_clips_is_read_ahead(keep, stores, tmp_path, monkeypatch):
    """The Fisher information, the steps and two validations."""
    options = {"validation": True, "start": "fisher", "epochs": 1, "steps_per_epoch": 2, "keep": keep}
    plain = job(stores, tmp_path / "plain", **options)
    assert plain.run()
    fit, read, many = job(stores, tmp_path / "ahead", workers=3, **options), Features.batch, []
    monkeypatch.setattr("bayes_panns.svi.loader.Ahead", Here)

    def batch(self, index, device="cpu"):
        # A single clip shows what a batch is like.
        many.extend([index] if len(index) > 1 else [])
        return read(self, index, device)

    monkeypatch.setattr(Features, "batch", batch)
    assert fit.run()
    assert not many
    assert fit._loader.waiting() is None
    assert same(state(plain), state(fit))
    one, other = (read_metrics(tmp_path / name / METRICS) for name in ("plain", "ahead"))
    assert [line | {"seconds": 0} for line in one] == [line | {"seconds": 0} for line in other]
    assert [line["step"] for line in one] == [2, 3]


def test_features_are_of_waveforms_that_are_read_ahead(stores, monkeypatch):
    clips, front_end = ClipSet(stores), LogMel(RATE)
    plain = Features(clips, front_end, Task.ONE_OF_K)
    monkeypatch.setattr("bayes_panns.clips.ahead.Ahead", Here)
    monkeypatch.setattr(ClipSet, "waveform", None)
    for keep in ("memory", "disk"):
        found = Features(clips, front_end, Task.ONE_OF_K, keep=keep, workers=2)
        for one, other in zip(plain.batch(torch.arange(24)), found.batch(torch.arange(24)), strict=True):
            assert torch.equal(one, other)


@pytest.mark.long
def test_a_fit_says_what_is_wrong_with_a_clip_in_one_line(stores, tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(stores[0].read_bytes())
    with h5py.File(path, "r+") as file:
        file["waveform"][5, 9] += 1
    messages = []
    for workers in (0, 1):
        fit = job([path], tmp_path / str(workers), workers=workers, epochs=4)
        with pytest.raises(StoreError) as told:
            fit.run()
        messages.append(str(told.value))
    assert messages[0] == messages[1]
    assert "clip 'clip 5' is not what was packed" in messages[0]
    assert "\n" not in messages[0]


class TestLoader:
    def data(self, stores):
        return Features(ClipSet(stores), LogMel(RATE), Task.ONE_OF_K, keep="none")

    def test_some_of_a_planned_batch_and_others_are_read(self, stores):
        data, plan = self.data(stores), torch.arange(24).split(6)
        loader = Loader([data], "cpu", workers=2)
        # Stand in for the processes: what is checked is which of the batch is taken.
        loader._ahead = iter([data.reader.read(index.numpy()) for index in plan])
        loader._planned.extend((0, index) for index in plan)
        for index in (torch.arange(6), torch.tensor([10, 6, 10]), torch.tensor([3, 20]), torch.arange(12, 18)):
            values, target = loader.batch(index)
            wanted = data.batch(index)
            assert torch.equal(values, wanted[0])
            assert torch.equal(target, wanted[1])

    def test_waiting_is_told_once_with_what_to_do(self, stores, monkeypatch):
        clock = [100.0]
        monkeypatch.setattr("bayes_panns.svi.loader.time.monotonic", lambda: clock[0])
        data = self.data(stores)
        loader, read = Loader([data], "cpu"), data.batch

        def batch(index, device="cpu"):
            clock[0] += 1
            return read(index, device)

        monkeypatch.setattr(data, "batch", batch)

        def epoch(computing):
            for _ in range(4):
                loader.batch(torch.arange(2))
                clock[0] += computing
            return loader.waiting()

        assert epoch(computing=99) is None
        # The first batch of an epoch does not count: 3 s of waiting, and 4 of computing.
        told = epoch(computing=1)
        assert told.startswith("43 % of the time was spent waiting for clips: ")
        assert "--workers" in told or 'fit.features = "disk"' in told
        assert epoch(computing=1) is None

    def test_what_is_in_memory_needs_no_processes(self, stores):
        plan = [(0, index) for index in torch.arange(24).split(6)]
        loader = Loader([Features(ClipSet(stores), LogMel(RATE), Task.ONE_OF_K)], "cpu", plan, 4)
        with loader:
            assert loader.workers == 0
            assert loader.batch(torch.arange(2))[0].shape[0] == 2
        assert loader.waiting() is None


@pytest.mark.parametrize(
    ("features", "device", "cores", "processes", "workers"),
    [
        ("none", "cpu", 2, 1, 1),
        ("none", "cpu", 1, 1, 0),
        ("none", "cuda", 64, 1, 4),
        ("none", "cuda", 16, 8, 1),
        ("disk", "cpu", 8, 1, 0),
        ("disk", "cuda", 8, 1, 4),
        ("memory", "cuda", 8, 1, 0),
        ("embeddings", "cuda", 8, 1, 0),
    ],
)
def test_how_many_processes_read_by_default(features, device, cores, processes, workers, monkeypatch):
    monkeypatch.setattr("bayes_panns.svi.loader.os.sched_getaffinity", lambda process: range(cores))
    monkeypatch.setattr("bayes_panns.svi.loader.launch", lambda: Launch(0, processes, 0, processes))
    assert default_workers(features, torch.device(device)) == workers
