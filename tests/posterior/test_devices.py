import pytest
import torch

from bayes_panns.core.errors import FitError, SettingError
from bayes_panns.posterior import choose_device


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


def test_a_gpu_has_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(FitError, match="device cuda:2: there are 2 GPUs, numbered from 0"):
        choose_device("cuda:2")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FitError, match=f"device {device}: torch sees no GPU here"):
        choose_device(device)


@pytest.mark.parametrize("device", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "mps:0", "cuda\n"])
def test_other_names_are_refused(device):
    with pytest.raises(SettingError, match="write auto, cpu, cuda, cuda:N or mps"):
        choose_device(device)


def test_the_gpu_of_an_apple_is_there_or_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(FitError, match="device mps: torch sees no GPU of Apple's here; use cpu or auto"):
        choose_device("mps")
