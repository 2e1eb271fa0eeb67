import json

import pytest
import torch
from click.testing import CliRunner
from pyro.infer.autoguide import AutoNormal
from torch.nn import functional as F

from bayes_panns.audio.front_end import LogMel
from bayes_panns.bayes import Rule, Settings, Strategy
from bayes_panns.cli import main
from bayes_panns.clips import Task
from bayes_panns.interop import export_checkpoint, import_checkpoint, network_checkpoint
from bayes_panns.interop.export import front_end_matrices
from bayes_panns.nets import NETS
from bayes_panns.posterior import Calibration, Posterior, load, save
from bayes_panns.recipes import read_strategy


def build(strategy="flip", **options):
    settings = {"net": "resnet14-narrow", "labels": ("cat", "dog"), "task": Task.ONE_OF_K, "sample_rate": 8000}
    strategy = read_strategy(strategy) if isinstance(strategy, str) else strategy
    return Posterior.build(**{**settings, "clip_seconds": 0.5, "strategy": strategy, **options})


@pytest.mark.parametrize(
    ("strategy", "net"),
    [
        *((name, "resnet14-narrow") for name in ("flip", "det-flip", "det", "rotated-head", "low-rank-head", "map")),
        ("flip", "resnet14-coarse"),  # with the keys of the narrow one
    ],
)
def test_the_mean_is_exported_and_imported_again_with_nothing_lost(tmp_path, strategy, net):
    posterior = build(strategy, net=net)
    posterior.guide.prepare(torch.randn(20, 2, 128), None)
    export_checkpoint(posterior, tmp_path / "net.pth")
    again = import_checkpoint(tmp_path / "net.pth", "panns")
    for attribute in ("net", "labels", "task", "sample_rate", "clip_seconds"):
        assert getattr(again, attribute) == getattr(posterior, attribute)
    clips = 0.1 * torch.randn(3, 4000)
    assert torch.equal(next(again.draws(clips, 0)), next(posterior.draws(clips, 0)))
    for name, value in posterior.points().items():
        assert torch.equal(again.points()[name], value)
    for name, (loc, _) in posterior.gaussians().items():
        assert torch.equal(again.points()[name], loc)
        assert again.points()[name].shape == loc.shape


def test_the_command_knows_every_network():
    choices = next(option for option in main.commands["import"].params if option.name == "net").type.choices
    assert set(choices) == set(NETS)


def test_a_flipout_posterior_and_its_export_agree_at_the_mean(tmp_path):
    strategy = Strategy(default=Settings(prior="normal"), rule=[Rule(match="fc*", posterior="point")])
    posterior = build(strategy)
    export_checkpoint(posterior, tmp_path / "net.pth")
    clips = 0.1 * torch.randn(2, 4000)
    again = import_checkpoint(tmp_path / "net.pth", "vi-pann")
    assert torch.equal(next(again.draws(clips, 0)), next(posterior.draws(clips, 0)))


def test_the_keys_are_those_that_panns_has(reference):
    _, golden = reference
    keys = json.loads(str(golden["keys"]))
    front_end = {name: shape for name, shape in keys.items() if name.startswith(("spectrogram", "logmel"))}
    assert {name: list(value.shape) for name, value in front_end_matrices(LogMel(32000)).items()} == front_end
    state = network_checkpoint(build())["model"]
    assert list(state)[:3] == list(front_end)
    assert all(type(value) is torch.Tensor and value.is_contiguous() for value in state.values())
    assert not any(value.requires_grad for value in state.values())


@pytest.mark.parametrize("rate", [32000, 16000, 8000])
def test_the_front_ends_matrices_make_the_spectrogram_that_the_posterior_takes(rate):
    front_end = LogMel(rate)
    matrices = front_end_matrices(front_end)
    window, hop = front_end.settings.window, front_end.settings.hop
    # A quarter of one turn into the window, where hann is 1/2: exp(-i pi / 2) = -i, a sign that power does not show.
    assert matrices["spectrogram_extractor.stft.conv_imag.weight"][1, 0, window // 4] == pytest.approx(-0.5)
    waveform = 0.1 * torch.randn(2, rate // 2)
    padded = F.pad(waveform[:, None], (window // 2, window // 2), mode="reflect")
    real, imaginary = (
        F.conv1d(padded, matrices[f"spectrogram_extractor.stft.conv_{part}.weight"], stride=hop)
        for part in ("real", "imag")
    )
    mel = (real**2 + imaginary**2).transpose(1, 2) @ matrices["logmel_extractor.melW"]
    torch.testing.assert_close(10 * mel.clamp(min=1e-10).log10(), front_end(waveform), rtol=0, atol=1e-3)


def test_the_golden_spectrogram_comes_of_the_matrices(reference):
    formula, golden = reference
    matrices = front_end_matrices(LogMel(32000))
    padded = F.pad(torch.from_numpy(formula.waveform(2, 64000))[:, None], (512, 512), mode="reflect")
    parts = [F.conv1d(padded, matrix, stride=320) for name, matrix in matrices.items() if "conv" in name]
    mel = (parts[0] ** 2 + parts[1] ** 2).transpose(1, 2) @ matrices["logmel_extractor.melW"]
    logmel = 10 * mel.clamp(min=1e-10).log10()
    torch.testing.assert_close(logmel, torch.from_numpy(golden["logmel"]), rtol=0, atol=2e-3)


def test_a_guide_of_the_users_own_is_exported_at_its_median(monkeypatch):
    import sys
    import types

    monkeypatch.setitem(sys.modules, "own_guides", types.ModuleType("own_guides"))
    sys.modules["own_guides"].make = lambda model: AutoNormal(model, init_scale=0.02)
    posterior = build(guide_function="own_guides:make")
    clips = torch.zeros(1, 4000)
    posterior.model.eval()
    posterior.guide(clips, torch.zeros(1).long())
    state = network_checkpoint(posterior)["model"]
    assert torch.equal(state["fc1.weight"], posterior.guide.median()["net.fc1.weight"])


def test_the_command_writes_a_file_and_tells_what_it_leaves_out(tmp_path):
    posterior = build()
    posterior.calibration = Calibration(
        temperature=1.5, threshold=0.1, coverage=0.9, draws=20, clips=(5, 5), data=("s.h5",)
    )
    save(posterior, tmp_path / "p")
    out = tmp_path / "new" / "net.pth"
    out.parent.mkdir()
    result = CliRunner().invoke(main, ["export", str(tmp_path / "p"), "-o", str(out)])
    assert result.exit_code == 0
    assert "cannot hold the temperature; divide its logits by 1.500" in result.stderr
    assert [path.name for path in out.parent.iterdir()] == ["net.pth"]
    loaded = load(tmp_path / "p").gaussians()["fc1.weight"][0]
    assert torch.equal(torch.load(out, weights_only=True)["model"]["fc1.weight"], loaded)
    result = CliRunner().invoke(main, ["export", str(tmp_path / "p"), "-o", str(out), "--draws", "3"])
    assert result.exit_code == 2
    assert "for --format arviz" in result.stderr
