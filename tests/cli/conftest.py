import pytest
import torch

from bayes_panns.clips import Task
from bayes_panns.posterior import Posterior, save
from bayes_panns.recipes import read_strategy
from tests.cli.field import LABELS, RATE


@pytest.fixture(scope="session")
def net(tmp_path_factory):
    """A posterior that tags half a second of sound; its weights are random."""
    torch.manual_seed(0)
    made = Posterior.build(
        net="resnet14-narrow",
        labels=LABELS,
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=0.5,
        strategy=read_strategy("det-flip"),
    )
    folder = tmp_path_factory.mktemp("posterior") / "net"
    save(made, folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder in which commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
