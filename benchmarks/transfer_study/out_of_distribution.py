"""The out-of-distribution clips of the study, and a trivial score that detects them."""

import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns.clips import ClipSet
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import Interval, auroc
from bayes_panns.metrics.bootstrap import LEVEL, Sample, percentiles
from bayes_panns.posterior import Posterior
from benchmarks.transfer_study.design import Study

KINDS = ("near", "speech")


class OutOfDistribution:
    """Which out-of-distribution clips are near sounds and which are speech, and their recordings.

    Args:
        near: The store of near sounds.
        speech: The store of speech, if there is one.

    Attributes:
        present: The kinds that there are.

    Raises:
        BayesPannsError: A name is in both stores, or twice in one.
    """

    def __init__(self, near: ClipSet, speech: ClipSet | None = None):
        given = {"near": near} | ({} if speech is None else {"speech": speech})
        self.present = tuple(given)
        self.kinds: dict[str, str] = {}
        self.recordings: dict[str, str] = {}
        for kind, clips in given.items():
            for name, recording in zip(clips.names, recordings(clips), strict=True):
                if name in self.kinds:
                    raise BayesPannsError(f"{name}: is in both stores, or twice in one; rename one of the clips")
                self.kinds[name], self.recordings[name] = kind, recording

    def of(self, evaluation: Evaluation, kind: str) -> NDArray[np.bool_]:
        """Which of an evaluation's out-of-distribution clips are of a kind."""
        return np.array([self.kinds[name] == kind for name in evaluation.ood_names])

    def groups(self, evaluation: Evaluation, kind: str) -> NDArray[np.str_]:
        """The recordings of those clips. Each clip occurs once for each fold, whose posterior has scored it."""
        return np.array([self.recordings[name] for name in evaluation.ood_names if self.kinds[name] == kind])


def recordings(clips: ClipSet) -> list[str]:
    """The recording of each clip, or its name where that is unknown."""
    known = [""] * len(clips) if clips.sources is None else clips.sources.tolist()
    return [recording or name for recording, name in zip(known, clips.names, strict=True)]


@torch.no_grad()
def trivial_auroc(study: Study, posterior: Posterior) -> dict[str, Interval]:
    """How well the top of the spectrum alone detects near sounds and speech: AUROC, with intervals over recordings.

    The score is minus the loudest frame of the mean of the top eight mel bands, in dB. It uses the front end alone.
    """
    clips = {"inside": ClipSet(study.data), "near": ClipSet(study.near), "speech": ClipSet(study.speech)}
    score, samples = {}, {}
    for kind, each in clips.items():
        parts = np.array_split(np.arange(len(each)), -(-len(each) // 32))
        score[kind] = np.concatenate(
            [-posterior.front_end(torch.from_numpy(each.waveform(p)))[:, :, -8:].mean(2).amax(1).numpy() for p in parts]
        )
        samples[kind] = Sample(len(each), np.array(recordings(each)))

    def statistic(inside: NDArray[np.intp], strange: NDArray[np.intp], kind: str) -> NDArray[np.float64]:
        return np.array([auroc(score["inside"][inside], score[kind][strange])])

    found = {}
    for kind in KINDS:
        (found[kind],) = percentiles(
            lambda inside, strange, kind=kind: statistic(inside, strange, kind),
            [samples["inside"], samples[kind]],
            study.resamples,
            LEVEL,
            0,
            np.array([False]),
        )
    return found
