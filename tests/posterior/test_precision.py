"""Predictions in bfloat16: near those of float32, and float32 from the logits on."""

import numpy as np
import pytest
import torch

from bayes_panns.core.choices import Precision
from bayes_panns.core.errors import PosteriorError, SettingError
from bayes_panns.posterior import Ensemble, load, load_all, save
from bayes_panns.predictions.clip_sets import predict_waveforms
from bayes_panns.recipes import read_strategy
from tests.posterior.test_posterior import build

LEAST, MOST = 1e-5, 0.01
"""How far a probability in bfloat16 is from that of float32: it has 8 bits, which some 15 layers round to."""


KINDS = ["flip", "det-flip", "drop", "det"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("precision")
    torch.manual_seed(1)
    for kind in KINDS:
        save(build(read_strategy(kind)), place / kind)
    return place


@pytest.fixture(params=[*KINDS[:2], *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS[2:])])
def folder(request, folders):
    return folders / request.param


def sounds():
    return 0.1 * torch.randn(5, 4000, generator=torch.Generator().manual_seed(0))


def layers(posterior):
    """The types of what the network's layers give, once it has run; without the normalised spectrogram."""
    found = set()
    for name, module in posterior.model.net.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d) and name != "bn0":
            module.register_forward_hook(lambda _, __, output: found.add(output.dtype))
    return found


def test_probabilities_are_near_those_of_float32(folder):
    full, half = load(folder), load(folder, precision="bf16")
    assert (full.precision, half.precision) == (Precision.FLOAT32, Precision.BF16)
    types = layers(half)
    for draws in (0, 4):
        one = torch.stack(list(full.draws(sounds(), draws)))
        other = torch.stack(list(half.draws(sounds(), draws)))
        assert other.dtype == torch.float32
        assert LEAST < (one - other).abs().max() < MOST
        assert torch.equal(torch.stack(list(load(folder).draws(sounds(), draws))), one)
    assert types == {torch.bfloat16}
    assert half.front_end(sounds()).dtype == torch.float32


def test_the_uncertainty_is_wide_and_no_information_is_negative(folder):
    full, half = (predict_waveforms(load(folder, precision=each), [sounds()], 6) for each in ("float32", "bf16"))
    assert half.probability.dtype == half.entropy.dtype == np.float64
    assert np.abs(half.probability - full.probability).max() < MOST
    np.testing.assert_allclose(half.probability.sum(axis=1), 1, atol=1e-6)
    assert (half.entropy >= half.expected_entropy - 1e-12).all()
    assert (half.mutual_information >= 0).all()
    assert (half.epistemic >= 0).all()
    assert np.abs(half.mutual_information - full.mutual_information).max() < MOST


def test_embeddings_are_near_those_of_float32(folder):
    full, half = (load(folder, precision=each).embed(sounds()) for each in ("float32", "bf16"))
    assert half.dtype == torch.float32
    assert 1e-4 < (half - full).norm() / full.norm() < 0.02


def test_moments_have_float32_only(folders):
    with pytest.raises(PosteriorError, match="moments are computed in float32 only, not bf16; use draws"):
        load(folders / "flip", precision="bf16").moments(sounds())


def test_members_of_an_ensemble_have_one_precision(folders):
    places = [folders / "det", folders / "drop"]
    assert load_all(places, precision="bf16").precision == Precision.BF16
    with pytest.raises(PosteriorError, match="differ in precision"):
        Ensemble([load(places[0]), load(places[1], precision="bf16")])


def test_an_unknown_precision_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(SettingError, match="precision 'half': write float32 or bf16"):
        load(tmp_path / "missing", precision="half")
