"""Every call that takes a number of draws refuses what is none, before it does any work."""

import numpy as np
import pytest
import torch

import bayes_panns
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import SettingError
from bayes_panns.interop import to_inference_data
from bayes_panns.jobs import acquire, calibrate, crossval, evaluate_posterior, predict_to
from bayes_panns.metrics import Finding, count_events
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import predict, predict_logits, tag
from bayes_panns.recipes import Data, Run

RATE, DRAWS = 8000, 2.5


class Case:
    """A posterior, and where its clips are: a store with folds."""

    def __init__(self, folder):
        self.folder, self.store = folder, folder / "clips.h5"
        sound, target = np.zeros((4, RATE // 2)), np.eye(2, dtype=bool)[[0, 1, 0, 1]]
        write(self.store, sound, target, ("a", "b"), Task.ONE_OF_K, RATE, fold=np.array([1, 1, 2, 2]))
        self.clips = ClipSet(self.store)
        self.posterior = Posterior.build(
            net="resnet14-narrow", task=Task.ONE_OF_K, sample_rate=RATE, clip_seconds=0.5, labels=("a", "b")
        )


CALLS = {
    "acquire": lambda case: acquire(case.posterior, [case.folder / "a.wav"], 1, folder=case.folder, draws=DRAWS),
    "calibrate": lambda case: calibrate(case.posterior, case.clips, draws=DRAWS),
    "count events": lambda case: count_events([1], [1], [1], [1], share=1, draws=DRAWS),
    "count of a recording": lambda case: Finding.of(*np.ones((3, 2, 1), int), np.ones(2)).count([1], 1, draws=DRAWS),
    "crossval": lambda case: crossval(Run(data=Data(stores=[str(case.store)])), case.folder / "x", draws=DRAWS),
    "draws": lambda case: next(case.posterior.draws(torch.zeros(1, RATE // 2), DRAWS)),
    "evaluate": lambda case: evaluate_posterior(case.posterior, case.store, draws=DRAWS),
    "evaluate, of the package": lambda case: bayes_panns.evaluate(case.posterior, case.store, draws=DRAWS),
    "inference data": lambda case: to_inference_data(case.posterior, draws=DRAWS),
    "logits": lambda case: predict_logits(case.posterior, case.clips, DRAWS),
    "predict": lambda case: predict(case.posterior, case.clips, DRAWS),
    "predict, of the package": lambda case: bayes_panns.predict(case.posterior, np.ones(RATE), rate=RATE, draws=DRAWS),
    "predict to": lambda case: predict_to(case.posterior, case.folder / "a.wav", case.folder / "x", draws=DRAWS),
    "tag": lambda case: tag(case.posterior, case.folder / "a.wav", DRAWS),
}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("draws"))


@pytest.mark.parametrize("name", CALLS)
def test_half_a_draw_is_refused_in_one_line(case, name):
    with pytest.raises(SettingError, match=r"^draws is 2\.5: give a whole number from [01] up(, or \"moments\")?$"):
        CALLS[name](case)
    assert [each.name for each in case.folder.iterdir()] == ["clips.h5"]
