"""Small fits that one process or several make.

``python fits.py FOLDER WORLD NAME...`` makes fits in WORLD processes: forks of one that has imported all that they need
and computed nothing. ``python fits.py FOLDER fails METHOD``, in the environment that a launcher sets up, makes one that
fails.
"""

import json
import os
import signal
import socket
import sys
import traceback
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from torch import nn

from bayes_panns.bayes import BayesianNet, CustomGuide, MultiLabel, OneOfK, Strategy, guide_from_strategy
from bayes_panns.core.digests import unsealed
from bayes_panns.nets import Network
from bayes_panns.ranks import group, leave, per_clip
from bayes_panns.svi import Fit, FitSettings, Stop

CLIPS, FRAMES, MELS, LABELS = 23, 40, 12, 3

NATURAL = {"optimizer": "natural-gradient", "spec_augment": False}

CASES = {
    "weights": {"estimator": "weights"},
    "flipout": {"estimator": "flipout"},
    "mirrored": {"estimator": "mirrored"},
    "local": {"estimator": "local", "embeddings": True, "spec_augment": False, "views": 2},
    "mixup": {"estimator": "flipout", "mixup": True},
    "multi-label": {"estimator": "mirrored", "multi_label": True, "mixup": True, "sampling": "balanced"},
    "squared-gradients": NATURAL | {"estimator": "flipout", "natural": {"curvature": "squared-gradients"}},
    "gauss-newton": NATURAL | {"estimator": "mirrored", "natural": {"curvature": "gauss-newton"}},
    "gauss-newton-mixed": NATURAL | {"estimator": "weights", "natural": {"curvature": "gauss-newton"}, "mixup": True},
    "bounds": {"estimator": "weights", "learning_rate": 0.3, "scale_bounds": [0.05, 0.2], "clip_gradient": 0.1},
    "clipped": NATURAL | {"estimator": "flipout", "clip_gradient": 0.01},
    "accumulate": {"estimator": "flipout", "accumulate": 2, "mixup": True, "frozen": ("bn0", "bn1")},
    "accumulate-natural": NATURAL
    | {"estimator": "mirrored", "natural": {"curvature": "gauss-newton"}, "accumulate": 2, "frozen": ("bn0", "bn1")},
    "blocks": {"estimator": "weights", "sampling": "blocks", "block": 3},
    "own-guide": {"own": 2, "clip_gradient": 1.0},
    "own-guide-in-parts": {"own": 1, "accumulate": 2, "frozen": ("bn0", "bn1")},
    "stopped": {"estimator": "flipout", "mixup": True, "clip_gradient": 1.0, "batch_size": 11},
    "price": NATURAL | {"estimator": "weights", "natural": {"curvature": "price"}, "start": "fisher"},
}
"""Fits by name: their settings, and some more."""

FAILS = {"estimator": "weights", "clip_gradient": 1.0}
"""The fit of which one process fails."""

FAIL_AT = {"_step": 3, "_asked": 5}
"""After how many steps, by the method in which it fails: within a step, and between two steps."""


class Tiny(Network):
    """Convolutions with BatchNorm, and two linear layers."""

    head = "last"

    def __init__(self):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(MELS)
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(4, 8)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(8, LABELS)

    def embed(self, features, augment=None):
        x = self.bn0(features.transpose(1, 2).unsqueeze(-1)).permute(0, 3, 2, 1)
        x = x if augment is None else augment(x)
        return self.drop(self.hidden(torch.relu(self.bn1(self.conv(x))).mean(dim=(2, 3))).tanh())

    def classify(self, embedding):
        return self.last(embedding)


class OwnGuide(nn.Module):
    """A user's guide, of which one parameter is never used, and another one in every so many calls only."""

    def __init__(self, model, every):
        super().__init__()
        self.names = list(model.sites)
        self.locs = nn.ParameterList(model.initial[name].clone() for name in self.names)
        self.spare, self.seldom = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(()))
        self.calls, self.every = 0, every

    def forward(self, *args, **kwargs):
        self.calls += 1
        factor = 1.0 if self.calls % self.every else self.seldom
        return {
            name: pyro.sample(name, dist.Normal(loc * factor, 0.1).to_event(loc.dim()))
            for name, loc in zip(self.names, self.locs, strict=True)
        }

    def median(self, *args, **kwargs):
        return dict(zip(self.names, self.locs, strict=True))


class Clips:
    """Clips of three labels in double precision; or embeddings of several views, of which a batch takes one each."""

    def __init__(self, *, multi_label, embeddings, fitted):
        generator = torch.Generator().manual_seed(1)
        label = torch.arange(CLIPS) % LABELS
        shape = (3, 8) if embeddings else (FRAMES, MELS)
        self.values = torch.randn(CLIPS, *shape, generator=generator, dtype=torch.double) + label[:, None, None]
        self.target = nn.functional.one_hot(label, LABELS).double() if multi_label else label
        self.embedded, self.clips, self.fitted = embeddings, self, fitted
        self.labels = ("a", "b", "c")
        self.places, self.reader = np.arange(CLIPS), None

    def __len__(self):
        return CLIPS

    def batch(self, index, device="cpu"):
        if not self.embedded:
            return self.values[index], self.target[index]
        view = per_clip(lambda clips: torch.randint(3, (clips,)), len(index)) if self.fitted else 0
        return self.values[index, view], self.target[index]


def make(
    folder, *, estimator="weights", multi_label=False, embeddings=False, dropout="off", own=0, frozen=(), **settings
):
    """A fit of a few steps of 8 or 7 clips, which three processes share out unevenly."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    defaults = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "steps_per_epoch": 2, "kl_weight": 0.1}
    features = {"features": "embeddings"} if embeddings else {}
    settings = FitSettings(**{**defaults, **features, **settings})
    normal = {"posterior": "normal", "estimator": estimator}
    head = {"default": {"posterior": "point"}, "rule": [{"match": "head.*", **normal}]}
    strategy = Strategy.model_validate(head if embeddings else {"default": normal, "dropout": dropout})
    likelihood = MultiLabel() if multi_label else OneOfK()
    model = BayesianNet.from_strategy(Tiny(), strategy, likelihood, clips=CLIPS).double()
    guide = (CustomGuide(model, OwnGuide(model, own)) if own else guide_from_strategy(model, strategy)).double()
    if embeddings:
        frozen = ("bn0", "conv", "bn1", "hidden")
    model.freeze(*frozen)
    data, held = (Clips(multi_label=multi_label, embeddings=embeddings, fitted=fitted) for fitted in (True, False))
    return Fit(model, guide, data, settings, folder, validation=held)


def state(fit):
    """All that a fit changes."""
    return {**fit.model.state_dict(), **fit.guide.state_dict()}


def lines(folder):
    """The metrics of a fit."""
    found = [unsealed(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def forks(world, work):
    """Do ``work(rank)``, which ends with :func:`end`, in so many processes, which a launcher might have started.

    Returns:
        Their ids.
    """
    # Adam imports it at its first use; so it is imported once.
    import_module("torch._dynamo")
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    found = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            added = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in added.items()} | {"MASTER_ADDR": "127.0.0.1"}
            try:
                torch.set_num_threads(1)
                work(rank)
            except BaseException:
                traceback.print_exc()
            end(1)
        found.append(child)
    return found


def end(code=0):
    """End this process while its fits exist: to destroy one may wait for a thread of gloo that waits for this one."""
    sys.stderr.flush()
    os._exit(code)


def ended(children):
    """The exit codes of processes, when they have ended."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def make_all(folder, names, rank):
    """Make fits; each process leaves what it has fitted."""
    for name in names:
        if name == "stopped":
            fit = stopped_and_resumed(folder / name)
        else:
            fit = make(folder / name, **CASES[name])
            assert fit.run()
        torch.save(state(fit) | {"random": torch.get_rng_state()}, folder / f"{name}.{rank}.pt")
    leave()
    end()


def asks_in_validation(fit, step, ask):
    """Let the last process of a fit call ``ask()`` in its first batch of the validation after a step.

    Of 23 clips in batches of 11 the first of two processes has two batches, and the last has one.
    """
    batch = fit.validation.batch

    def asking(index, device="cpu"):
        if fit.step == step and fit._group.rank == fit._group.size - 1 and len(index) == 11 and index[0] in (0, 12):
            ask()
        return batch(index, device)

    fit.validation.batch = asking


def stopped_and_resumed(folder):
    """The fit that is stopped in its first and its last validation, and resumed; it is one that never stopped."""
    several, whole = group(), make(folder / "whole", **CASES["stopped"])
    assert whole.run()
    random, fit = torch.get_rng_state(), make(folder, **CASES["stopped"])
    for step in (2, 6):
        asks_in_validation(fit, step, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert not fit.run()
        assert (fit.step, fit.stopped) == (step, Stop.REQUESTED)
        several.wait()
        assert lines(folder) == lines(folder / "whole")[: step // 2 - 1]
        torch.manual_seed(step)
        fit = make(folder, **CASES["stopped"])
        fit.load_checkpoint()
        several.wait()
    assert fit.run()
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state(fit)[name]) for name, value in state(whole).items())
    several.wait()
    assert lines(folder) == lines(folder / "whole")
    return fit


def fail(folder, where):
    """Make a fit in which the last process fails at the fourth or before the sixth step, in a method of the fit."""
    several = group()
    fit = make(folder / "fails", **FAILS)
    method = getattr(fit, where)

    def failing(given):
        if fit.step == FAIL_AT[where] and several.rank == several.size - 1:
            raise OSError(f"the disk of process {several.rank} is full")
        return method(given)

    setattr(fit, where, failing)
    fit.run()


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, what, *names = sys.argv[1:]
    if what == "fails":
        fail(Path(place), *names)
    else:
        sys.exit(max(map(abs, ended(forks(int(what), partial(make_all, Path(place), names))))))
