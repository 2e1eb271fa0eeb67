"""Where scikit-learn or torchmetrics has a metric, ours gives the same number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
    roc_curve,
)
from torchmetrics.functional import classification as peers
from torchmetrics.functional import retrieval

from bayes_panns.metrics import (
    accuracy,
    auc,
    aupr,
    auroc,
    average_precision,
    brier_split,
    classwise_ece,
    detection,
    ece,
    label_ranking_average_precision,
    mean_auc,
    mean_average_precision,
    nll,
)

SCIKIT = {"rel": 1e-12, "abs": 1e-12}
TORCH = {"abs": 1e-6}


def predictions(seed, clips, labels, steps):
    """Probabilities in ``steps`` equal steps, so that many are tied, and targets that go with them."""
    rng = np.random.default_rng(seed)
    p = rng.integers(0, steps + 1, (clips, labels)) / steps
    return p, rng.random(p.shape) < 0.15 + 0.5 * p


sizes = st.tuples(st.integers(0, 999), st.integers(1, 40), st.integers(1, 5), st.sampled_from([1, 4, 1000]))


@given(sizes)
@settings(max_examples=60)
def test_rankings_of_labels_agree_with_scikit_learn(size):
    p, t = predictions(*size)
    precision, area = average_precision(p, t), auc(p, t)
    for k in range(p.shape[1]):
        if t[:, k].any():
            assert precision[k] == pytest.approx(average_precision_score(t[:, k], p[:, k]), **SCIKIT)
        else:
            assert np.isnan(precision[k])
        if t[:, k].any() and not t[:, k].all():
            assert area[k] == pytest.approx(roc_auc_score(t[:, k], p[:, k]), **SCIKIT)
        else:
            assert np.isnan(area[k])


@given(sizes)
@settings(max_examples=60)
def test_rankings_of_a_clips_labels_agree_with_scikit_learn(size):
    p, t = predictions(*size)
    ours = label_ranking_average_precision(p, t)
    if p.shape[1] > 1:
        # scikit-learn takes a single column for a binary problem.
        assert ours.mean() == pytest.approx(label_ranking_average_precision_score(t, p), **SCIKIT)
    assert ((ours > 0) & (ours <= 1)).all()


@given(sizes)
@settings(max_examples=60)
def test_detection_agrees_with_scikit_learn(size):
    p, t = predictions(*size)
    score, outside = p.ravel(), t.ravel()
    if outside.all() or not outside.any():
        return
    found = detection(score[~outside], score[outside])
    assert found.auroc == pytest.approx(roc_auc_score(outside, score), **SCIKIT)
    assert found.aupr == pytest.approx(average_precision_score(outside, score), **SCIKIT)
    false_positive, true_positive, _ = roc_curve(outside, score, drop_intermediate=False)
    np.testing.assert_allclose(found.false_alarm, false_positive, atol=1e-12)
    np.testing.assert_allclose(found.detected, true_positive, atol=1e-12)
    assert found.fpr95 == pytest.approx(false_positive[true_positive >= 0.95 - 1e-12][0], **SCIKIT)


@given(sizes)
@settings(max_examples=30)
def test_the_parts_of_the_brier_score_are_those_of_scikit_learns_isotonic_regression(size):
    p, t = predictions(*size)
    split = brier_split(p, t, "multi-label")
    for k in range(p.shape[1]):
        y = t[:, k].astype(float)
        calibrated = IsotonicRegression().fit(p[:, k], y).predict(p[:, k])
        best, before = ((calibrated - y) ** 2).mean(), ((p[:, k] - y) ** 2).mean()
        assert split.label_reliability[k] == pytest.approx(before - best, **SCIKIT)
        assert split.label_resolution[k] == pytest.approx(y.var() - best, **SCIKIT)
        assert split.label_uncertainty[k] == pytest.approx(y.var(), **SCIKIT)


@pytest.fixture(scope="module")
def one_of_k():
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.full(5, 0.4), 200)
    label = np.r_[np.arange(5), rng.integers(0, 5, 195)]
    label[40:] = p[40:].argmax(axis=1)
    return p, np.eye(5, dtype=bool)[label], torch.tensor(p), torch.tensor(label)


@pytest.fixture(scope="module")
def multi_label():
    p, t = predictions(5, 200, 6, 1000)
    # torchmetrics puts a probability of exactly 1 in a bin of its own.
    p = 0.999 * p
    return p, t, torch.tensor(p), torch.tensor(t).long()


def test_one_of_k_agrees_with_torchmetrics(one_of_k):
    p, t, p_, label = one_of_k
    k = {"num_classes": 5}
    assert ece(p, t, "one-of-k") == pytest.approx(float(peers.multiclass_calibration_error(p_, label, **k)), **TORCH)
    assert accuracy(p, t) == pytest.approx(float(peers.multiclass_accuracy(p_, label, average="micro", **k)), **TORCH)
    assert accuracy(p, t) == accuracy_score(label, p.argmax(axis=1))
    assert mean_auc(p, t) == pytest.approx(float(peers.multiclass_auroc(p_, label, **k)), **TORCH)
    assert mean_average_precision(p, t) == pytest.approx(
        float(peers.multiclass_average_precision(p_, label, **k)), **TORCH
    )
    assert nll(p, t, "one-of-k") == pytest.approx(
        float(torch.nn.functional.nll_loss(p_.clamp(min=2.3e-16).log(), label)), **TORCH
    )


def test_multi_label_agrees_with_torchmetrics(multi_label):
    p, t, p_, t_ = multi_label
    k = {"num_labels": 6}
    pooled = peers.binary_calibration_error(p_.ravel(), t_.ravel())
    assert ece(p, t, "multi-label") == pytest.approx(float(pooled), **TORCH)
    columns = zip(p_.T.contiguous(), t_.T.contiguous(), strict=True)
    each = [float(peers.binary_calibration_error(*column)) for column in columns]
    np.testing.assert_allclose(classwise_ece(p, t), each, atol=1e-6)
    np.testing.assert_allclose(auc(p, t), peers.multilabel_auroc(p_, t_, average="none", **k), atol=1e-6)
    np.testing.assert_allclose(
        average_precision(p, t), peers.multilabel_average_precision(p_, t_, average="none", **k), atol=1e-6
    )
    ranking = peers.multilabel_ranking_average_precision(p_, t_, **k)
    assert label_ranking_average_precision(p, t).mean() == pytest.approx(float(ranking), **TORCH)


def test_detection_agrees_with_torchmetrics():
    rng = np.random.default_rng(0)
    inside, outside = rng.random(70), rng.random(40) ** 0.5
    score = torch.tensor(np.r_[inside, outside])
    truth = torch.tensor(np.r_[np.zeros(70), np.ones(40)]).long()
    assert auroc(inside, outside) == pytest.approx(float(peers.binary_auroc(score, truth)), **TORCH)
    assert aupr(inside, outside) == pytest.approx(float(peers.binary_average_precision(score, truth)), **TORCH)
    # Ranking clips for one query is the same sum.
    assert aupr(inside, outside) == pytest.approx(float(retrieval.retrieval_average_precision(score, truth)), **TORCH)
