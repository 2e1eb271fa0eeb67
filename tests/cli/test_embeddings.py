"""Embeddings of another program go through the commands, with the numbers of a direct computation."""

import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from bayes_panns.cli.main import main
from bayes_panns.clips import ClipSet, Store
from bayes_panns.evaluations import Evaluation
from bayes_panns.posterior import read_header

WIDTH, CLIPS, FOLDS = 512, 240, (1, 2, 3)
NAMES = ("wren", "lark", "robin", "owl")
"""Not in the order of the alphabet, in which the store has them."""


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def vectors():
    generator = np.random.default_rng(0)
    label = np.arange(CLIPS) % len(NAMES)
    centres = generator.normal(size=(len(NAMES), WIDTH))
    return {
        "embeddings": (0.15 * centres[label] + generator.normal(size=(CLIPS, WIDTH))).astype(np.float32),
        "labels": np.array(NAMES)[label],
        "folds": np.arange(CLIPS) * len(FOLDS) // CLIPS + 1,
        "recordings": np.array([f"recording {index // 2}" for index in range(CLIPS)]),
        "model": "BirdNET 2.4",
    }


@pytest.fixture(scope="module")
def home(vectors, tmp_path_factory):
    """The store, and a cross-validation of the most probable last layer on it."""
    folder = tmp_path_factory.mktemp("birds")
    np.savez(folder / "birds.npz", **vectors)
    run("pack", "embeddings", folder / "birds.npz", "-o", folder / "birds.h5")
    changes = ("head=probe", "data.validation=0", "fit.batch_size=512", "fit.epochs=200", "fit.learning_rate=1e-2")
    changes += ("fit.kl_weight=1", "fit.kl_warmup=0")
    given = [word for change in changes for word in ("--set", change)]
    run("crossval", "fixed-features", "--data", folder / "birds.h5", "--guide", "map-head", *given, "-o", folder / "cv")
    return folder


def labels_of(vectors):
    """Indices into the labels in the order of the alphabet."""
    return np.searchsorted(sorted(NAMES), vectors["labels"])


def fold_of(home, fold):
    return home / "cv" / "map-head" / "seed-0" / f"fold-{fold}"


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def nll(probability, label):
    return -np.log(probability[np.arange(len(label)), label]).mean()


def ece(probability, label, bins=15):
    """Guo et al., 2017, over bins of equal width."""
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == label
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return sum(
        abs(confidence[place == each].mean() - right[place == each].mean()) * (place == each).mean()
        for each in np.unique(place)
    )


def test_the_store_has_the_vectors_and_all_that_came_with_them(home, vectors):
    store = Store(home / "birds.h5")
    np.testing.assert_array_equal(store.embedding(np.arange(CLIPS)), vectors["embeddings"])
    np.testing.assert_array_equal(store.target().argmax(axis=1), labels_of(vectors))
    np.testing.assert_array_equal(store.folds, vectors["folds"])
    assert store.sources.tolist() == vectors["recordings"].tolist()
    described = run("inspect", home / "birds.h5").stdout
    assert re.search(r"^holds +embeddings\nmodel +BirdNET 2.4\nwidth +512$", described, re.MULTILINE)


def test_crossval_has_the_numbers_of_scikit_learn(home, vectors):
    label, fold = labels_of(vectors), vectors["folds"]
    # Weights and biases have one prior, Normal(0, 1 / sqrt(512)): a column of ones takes the place of the intercept.
    inputs = np.hstack([vectors["embeddings"], np.ones((CLIPS, 1))]).astype(np.float64)
    metrics = json.loads((home / "cv" / "results.json").read_text())["strategies"]["map-head"]["metrics"]
    for index, each in enumerate(FOLDS):
        direct = LogisticRegression(C=1 / WIDTH, fit_intercept=False, tol=1e-8, max_iter=10_000)
        direct.fit(inputs[fold != each], label[fold != each])
        expected = direct.predict_proba(inputs[fold == each])
        evaluation = Evaluation.load(fold_of(home, each) / "evaluation")
        np.testing.assert_allclose(evaluation.uncertainty.probability, expected, atol=2e-3)
        assert metrics["cal/nll"]["folds"][index] == pytest.approx(nll(expected, label[fold == each]), abs=1e-3)
        found = evaluation.uncertainty.probability
        accuracy = (found.argmax(axis=1) == label[fold == each]).mean()
        assert 0.5 < accuracy < 1, "the task is too easy or too hard to tell right from wrong"
        assert metrics["cls/accuracy"]["folds"][index] == pytest.approx(accuracy, abs=1e-12)
        assert metrics["cal/ece"]["folds"][index] == pytest.approx(ece(found, label[fold == each]), abs=1e-6)


def test_calibrate_and_report_have_the_numbers_of_a_direct_computation(home, vectors):
    label, fold = labels_of(vectors), vectors["folds"]
    posterior = fold_of(home, 1) / "posterior"
    weights = load_file(posterior / "guide.safetensors")
    matrix, bias = (weights[f"fc.{name}"].double().numpy() for name in ("weight", "bias"))
    logits = vectors["embeddings"] @ matrix.T + bias

    half, _ = ClipSet(home / "birds.h5", folds=[1]).split(0.5, seed=0)
    positions = [int(name.removeprefix("clip ")) for name in half.names]
    run("calibrate", fold_of(home, 1), "--data", home / "birds.h5", "--folds", 1)
    best = minimize_scalar(
        # With the prior of the logarithm, a Normal of 0 ± 0.5.
        lambda power: len(positions) * nll(softmax(logits[positions] / np.exp(power)), label[positions]) + 2 * power**2,
        bounds=(-3, 3),
        method="bounded",
    )
    temperature = read_header(posterior)["calibration"]["temperature"]
    assert temperature == pytest.approx(np.exp(best.x), rel=1e-3)

    # Scored on clips that neither the fit nor the calibration has seen would need a third part: here numbers count.
    result = home / "metrics.json"
    run("evaluate", posterior, "--data", home / "birds.h5", "--folds", 1, "--json", result)
    metrics, expected = json.loads(result.read_text()), softmax(logits[fold == 1] / temperature)
    truth = label[fold == 1]
    assert metrics["cal/nll"] == pytest.approx(nll(expected, truth), abs=1e-5)
    assert metrics["cal/ece"] == pytest.approx(ece(expected, truth), abs=1e-5)
    assert metrics["cls/accuracy"] == (expected.argmax(axis=1) == truth).mean()

    page = home / "report.html"
    run("report", posterior, "--data", home / "birds.h5", "--folds", 1, "-o", page)
    text = page.read_text()
    assert f"{nll(expected, truth):.3f}" in text
    assert f"{metrics['cls/accuracy']:.3f}" in text
    assert "a last layer on embeddings of BirdNET 2.4" in text
    assert "there is no sound to show" in text
    assert "<audio" not in text
    assert "Spectrogram" not in text


def test_a_posterior_of_embeddings_does_not_tag_sound(home, tmp_path):
    (tmp_path / "dog.wav").write_bytes(b"RIFF")
    result = run("predict", fold_of(home, 1), tmp_path / "dog.wav", code=1)
    assert re.search(r"takes embeddings of 512 numbers \(BirdNET 2.4\), not sound", result.stderr)
    result = run("embed", fold_of(home, 1), tmp_path / "dog.wav", "-o", tmp_path / "x.npz", code=1)
    assert "not sound" in result.stderr
    result = run("export", fold_of(home, 1), "-o", tmp_path / "x.pth", code=1)
    assert "there are no checkpoints of it" in result.stderr


def test_embeddings_of_another_model_or_width_are_not_scored(home, vectors, tmp_path):
    changed = {"model": "Perch 8"}, {"embeddings": vectors["embeddings"][:, :100]}
    for change, words in zip(changed, (r"512 numbers \(Perch 8\)", "100 numbers"), strict=True):
        np.savez(tmp_path / "other.npz", **vectors | change)
        run("pack", "embeddings", tmp_path / "other.npz", "-o", tmp_path / "other.h5")
        result = run("evaluate", fold_of(home, 1), "--data", tmp_path / "other.h5", code=1)
        assert re.search(f"holds embeddings of {words}.*takes embeddings of 512 numbers .BirdNET 2.4", result.stderr)


def test_options_of_sound_are_refused_for_embeddings(home, tmp_path):
    for option in (("--seconds", 5), ("--sample-rate", 8000), ("--esc10",)):
        result = run("pack", "embeddings", home / "birds.npz", "-o", tmp_path / "x.h5", *option, code=2)
        assert f"{option[0]} is not for the catalog embeddings" in result.stderr
    result = run("pack", "folder", tmp_path, "-o", tmp_path / "x.h5", "--model", "X", code=2)
    assert "--model is not for the catalog folder" in result.stderr


def test_a_model_clips_to_leave_out_and_rare_labels_are_chosen(home, vectors, tmp_path):
    labels = vectors["labels"].copy()
    labels[0] = "rare"
    np.savez(tmp_path / "b.npz", **vectors | {"labels": labels})
    arguments = ("--model", "Mine", "--exclude", "recording 1,clip 7", "--min-count", 5)
    result = run("pack", "embeddings", tmp_path / "b.npz", "-o", tmp_path / "b.h5", *arguments)
    assert "236 clips packed, 0 skipped, 3 excluded" in result.stderr
    store = Store(tmp_path / "b.h5")
    assert store.model == "Mine"
    assert "rare" not in store.labels
    assert not {"clip 0", "clip 2", "clip 3", "clip 7"} & set(store.names)
    kept = [int(name.removeprefix("clip ")) for name in store.names]
    np.testing.assert_array_equal(store.embedding(np.arange(len(store))), vectors["embeddings"][kept])
    assert torch.from_numpy(store.target()).sum() == 236
