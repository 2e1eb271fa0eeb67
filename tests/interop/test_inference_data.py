import sys
import warnings
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bayes_panns.bayes import Settings, Strategy, mirrored_draws
from bayes_panns.cli import main
from bayes_panns.clips import ClipSet, Task, write
from bayes_panns.core.errors import BayesPannsError, PosteriorError, StoreError
from bayes_panns.interop import export_arviz, to_inference_data
from bayes_panns.posterior import Calibration, Posterior, save
from bayes_panns.recipes import read_strategy

LABELS = ("cat", "dog", "rain")


@pytest.fixture
def arviz():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pytest.importorskip("arviz")


@pytest.fixture
def store(tmp_path):
    def make(labels=LABELS, rate=8000):
        path = tmp_path / f"{'-'.join(labels)}-{rate}.h5"
        target = np.eye(len(labels), dtype=bool)[np.arange(4) % len(labels)]
        write(
            path,
            names=[f"{index}.wav" for index in range(4)],
            waveform=0.1 * torch.randn(4, rate // 2).numpy(),
            target=target,
            labels=labels,
            task=Task.ONE_OF_K,
            sample_rate=rate,
        )
        return path

    return make


def build(strategy="flip", **options):
    settings = {"net": "resnet14-narrow", "labels": LABELS, "task": Task.ONE_OF_K, "sample_rate": 8000}
    strategy = read_strategy(strategy) if isinstance(strategy, str) else strategy
    return Posterior.build(**{**settings, "clip_seconds": 0.5, "strategy": strategy, **options})


def test_the_draws_of_the_head_are_those_that_predict(arviz, store):
    """With only the last layer variational, a draw's head and the clips' embeddings give the draw's probabilities."""
    posterior, clips = build("det-flip"), ClipSet(store())
    posterior.calibration = Calibration(
        temperature=2.0, threshold=0.1, coverage=0.9, draws=6, clips=(2, 2), data=("s.h5",)
    )
    posterior.model.eval()
    data = to_inference_data(posterior, clips, draws=6)
    weight, bias = data.posterior["head_weight"], data.posterior["head_bias"]
    assert weight.dims == ("chain", "draw", "label", "feature")
    assert weight.shape == (1, 6, 3, 128)
    assert list(weight["label"].values) == list(LABELS)
    with torch.no_grad():
        embedding = posterior.model.embed(torch.from_numpy(clips.waveform(range(4)))).numpy()
    logits = np.einsum("tlf,nf->tnl", weight.values[0], embedding) + bias.values[0][:, None]
    probability = data.predictions["probability"]
    assert probability.dims == ("chain", "draw", "clip", "label")
    assert list(probability["clip"].values) == clips.names
    expected = torch.from_numpy(logits / 2).softmax(dim=-1).numpy()
    np.testing.assert_allclose(probability.values[0], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(data.predictions_constant_data["target"], clips.target())
    assert data.attrs["mirrored"] == 1


def test_every_draw_is_the_guides(arviz):
    posterior = build()
    data = to_inference_data(posterior, draws=5)
    assert data.groups() == ["posterior"]
    drawn = [draw["net.fc_audioset.weight"].numpy().copy() for draw in islice(mirrored_draws(posterior.guide, 0), 5)]
    np.testing.assert_array_equal(data.posterior["head_weight"].values[0], drawn)
    summary = arviz.summary(to_inference_data(posterior, draws=200), var_names="head_bias", kind="stats")
    loc, scale = posterior.gaussians()["fc_audioset.bias"]
    np.testing.assert_allclose(summary["mean"], loc, atol=1e-3)
    np.testing.assert_allclose(summary["sd"], scale, rtol=0.2)


def test_points_are_constants(arviz, store):
    data = to_inference_data(build("drop"), ClipSet(store()), draws=4)
    assert set(data.groups()) == {"constant_data", "predictions", "predictions_constant_data"}
    assert data.constant_data["head_weight"].dims == ("label", "feature")
    assert data.predictions["probability"].shape == (1, 4, 4, 3)
    assert float(data.predictions["probability"].std("draw").min()) > 0
    assert to_inference_data(build("det"), ClipSet(store()), draws=4).predictions["probability"].shape == (1, 1, 4, 3)


def test_clips_of_other_labels_are_predicted_without_a_truth(arviz, store):
    data = to_inference_data(build(), ClipSet(store(labels=("wind", "sea"))), draws=2)
    assert set(data.groups()) == {"posterior", "predictions"}
    with pytest.raises(StoreError, match="sample rate 16000 Hz, but the posterior's is 8000 Hz"):
        to_inference_data(build(), ClipSet(store(rate=16000)), draws=2)


def test_dropout_in_the_predictions_is_refused(arviz):
    with pytest.raises(PosteriorError, match="depend on dropout, not on draws of the last layer alone"):
        to_inference_data(build(Strategy(dropout="always", default=Settings())), draws=2)


def test_the_command_writes_netcdf(arviz, store, tmp_path):
    posterior = build("det-flip")
    save(posterior, tmp_path / "p")
    out = tmp_path / "draws.nc"
    arguments = ["export", tmp_path / "p", "-o", out, "--format", "arviz", "--data", store(), "--draws", 4]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    data = arviz.from_netcdf(str(out))
    expected = to_inference_data(posterior, draws=4).posterior["head_weight"]
    np.testing.assert_array_equal(data.posterior["head_weight"], expected)
    assert data.predictions["probability"].shape == (1, 4, 4, 3)
    assert (data.attrs["mirrored"], data.attrs["net"]) == (1, "resnet14-narrow")
    result = CliRunner().invoke(main, ["export", str(tmp_path / "p"), "-o", str(out), "--folds", "1"])
    assert result.exit_code == 2


def test_a_disk_without_room_is_told_before_hdf5_writes(arviz, store, tmp_path, monkeypatch):
    """A full disk crashes the process in HDF5."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="the disk is full; free some space, or write elsewhere") as caught:
        export_arviz(build("det-flip"), tmp_path / "draws.nc", draws=2)
    assert caught.value.filename == str(tmp_path / "draws.nc")
    assert not list(tmp_path.iterdir())


def test_without_arviz_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(BayesPannsError, match=r"pip install 'bayes-panns\[arviz\]'"):
        to_inference_data(build())
