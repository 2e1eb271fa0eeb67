"""The default last layer through a run: fitted by natural gradients, calibrated from its own training clips."""

import json

import numpy as np
import pytest
import torch

from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import RecipeError, SettingError
from bayes_panns.jobs import calibrate, crossval, evaluate_posterior, fit
from bayes_panns.metrics import apply_power, nll
from bayes_panns.posterior import Ensemble, Power, load, save
from bayes_panns.predictions import predict
from bayes_panns.recipes import read_run, replaced
from bayes_panns.svi import MeanFieldELBO

WIDTH, LABELS = 24, ("bee", "frog", "owl")


def store(path, *, recordings=36, task=Task.ONE_OF_K, sources=True, seed=0, distance=4.0):
    """A store of embeddings: two clips a recording, classes well apart."""
    generator = np.random.default_rng(seed)
    label = np.arange(recordings) % 3
    x = distance * np.eye(3, WIDTH)[label] + generator.normal(size=(recordings, WIDTH))
    x = np.repeat(x, 2, axis=0) + 0.05 * generator.normal(size=(2 * recordings, WIDTH))
    target = np.eye(3, dtype=bool)[np.repeat(label, 2)]
    if task is Task.MULTI_LABEL:
        target[::5, 0] = True
    names = [f"{index}.wav" for index in range(len(x))]
    source = [f"tape-{index // 2}" for index in range(len(x))] if sources else None
    with writer(path, target, task) as made:
        made(x.astype(np.float32), target, names, source, np.repeat(label_folds(recordings), 2))
    return str(path)


def label_folds(recordings):
    return np.arange(recordings) // 3 % 3 + 1
