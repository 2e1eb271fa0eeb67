"""Stores of tones and short runs on them."""

import os
import signal
from contextlib import contextmanager

import numpy as np
import pytest

from bayes_panns.clips import Sampler, Task, write
from bayes_panns.jobs import fit
from bayes_panns.recipes import Data, Run
from bayes_panns.svi import FitSettings

RATE = 8000


def tones(path, pitches, labels, *, clips=16, fold=None, task=Task.ONE_OF_K, rate=RATE):
    generator = np.random.default_rng(len(labels))
    time = np.arange(rate // 2) / rate
    label = np.arange(clips) % len(labels)
    pitch = np.array(pitches)[label][:, None] * generator.uniform(0.95, 1.05, (clips, 1))
    waveform = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.01 * generator.normal(size=(clips, len(time)))
    write(path, waveform, np.eye(len(labels), dtype=bool)[label], labels, task, rate, fold=fold)
    return str(path)


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return {
        "upstream": tones(folder / "upstream.h5", [300, 900, 2500], ("low", "mid", "high")),
        "downstream": tones(folder / "downstream.h5", [500, 1500], ("a", "b"), fold=np.arange(16) // 8 + 1),
        "swapped": tones(folder / "swapped.h5", [1500, 500], ("b", "a")),
        "other": tones(folder / "other.h5", [500, 1500], ("a", "c")),
        "many": tones(folder / "many.h5", [500, 1500], ("a", "b"), task=Task.MULTI_LABEL),
        "fast": tones(folder / "fast.h5", [500, 1500], ("a", "b"), rate=16000),
    }


@pytest.fixture(scope="session")
def recipe():
    """Makes a quick run recipe."""

    def make(store, *, guide="flip", upstream=None, folds=None, freeze=(), validation=0.0, **settings):
        settings = {"epochs": 2, "batch_size": 8, "spec_augment": False, **settings}
        return Run(
            guide=guide,
            upstream=upstream,
            freeze=list(freeze),
            data=Data(stores=[store], folds=folds, validation=validation),
            fit=FitSettings(**settings),
        )

    return make


@pytest.fixture
def interrupted(monkeypatch):
    """A block in which a fit ends after its next step, as by Ctrl-C."""

    @contextmanager
    def block():
        batch = Sampler.batch

        def interrupt(sampler, step):
            os.kill(os.getpid(), signal.SIGINT)
            return batch(sampler, step)

        with monkeypatch.context() as patch:
            patch.setattr(Sampler, "batch", interrupt)
            yield

    return block


@pytest.fixture(scope="session")
def upstream(stores, tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("runs") / "upstream"
    fit(recipe(stores["upstream"], validation=0.2), folder)
    return folder


@pytest.fixture(scope="session")
def downstream(stores, upstream, tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("runs") / "downstream"
    settings = {"epochs": 30, "batch_size": 4, "learning_rate": 3e-3, "kl_weight": 1e-5}
    return fit(recipe(stores["downstream"], upstream=str(upstream), folds=[1], **settings), folder)
