import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from bayes_panns.uncertainty import accuracy, d_prime, mean_auc, mean_average_precision, top_label

P = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.5, 0.1, 0.4], [0.1, 0.8, 0.1]])
T = np.eye(3, dtype=bool)[[0, 1, 2, 1]]


def test_top_label_and_accuracy_by_hand():
    confidence, right = top_label(P, T)
    np.testing.assert_array_equal(confidence, [0.7, 0.4, 0.5, 0.8])
    np.testing.assert_array_equal(right, [True, True, False, True])
    assert accuracy(P, T) == 0.75


def test_average_precision_and_auc_by_hand():
    # Label 0 ranks its positive first (AP 1, AUC 1), label 1 both (1, 1), label 2 its one positive first (1, 1);
    # with the third clip's scores swapped, label 2 scores it 0.1, level with two others and below the fourth.
    assert mean_average_precision(P, T) == 1
    assert mean_auc(P, T) == 1
    swapped = P.copy()
    swapped[2] = [0.5, 0.4, 0.1]
    # Label 1: scores 0.2, 0.4+, 0.4-, 0.8+: precision 1 at the first hit, 2/3 at the tie. Label 2: 1/4 at the tie.
    assert mean_average_precision(swapped, T) == pytest.approx((1 + (1 + 2 / 3) / 2 + 1 / 4) / 3)
    # Label 1: of 4 pairs 3 right and one tie. Label 2: of 3 pairs 2 ties and one wrong.
    assert mean_auc(swapped, T) == pytest.approx((1 + 3.5 / 4 + 1 / 3) / 3)


def test_agreement_with_scikit_learn():
    rng = np.random.default_rng(0)
    p, t = rng.random((40, 6)), rng.random((40, 6)) < 0.3
    assert mean_average_precision(p, t) == pytest.approx(average_precision_score(t, p, average="macro"))
    assert mean_auc(p, t) == pytest.approx(roc_auc_score(t, p, average="macro"))


def test_d_prime_by_hand():
    assert d_prime(0.5) == 0
    # Phi(1) = 0.8413: one unit on each side.
    assert d_prime(0.841344746068543) == pytest.approx(np.sqrt(2))
    assert d_prime(1.0) == np.inf
    assert np.isnan(d_prime(float("nan")))


def test_an_absent_label_is_left_out_of_the_mean():
    p = np.array([[0.9, 0.5, 0.1], [0.2, 0.5, 0.3]])
    t = np.array([[True, False, True], [False, False, True]])
    # Label 1 has no positive, label 2 no negative.
    assert mean_average_precision(p, t) == 1
    assert mean_auc(p, t) == 1


def test_constant_scores_are_chance():
    p = np.full((4, 2), 0.5)
    t = np.eye(2, dtype=bool)[[0, 1, 1, 1]]
    assert mean_auc(p, t) == 0.5
    assert mean_average_precision(p, t) == pytest.approx((0.25 + 0.75) / 2)


def test_one_clip():
    p, t = np.array([[0.6, 0.4]]), np.array([[True, False]])
    assert accuracy(p, t) == 1
    assert mean_average_precision(p, t) == 1
    assert np.isnan(mean_auc(p, t))
    assert np.isnan(mean_average_precision(p, np.zeros((1, 2), dtype=bool)))


@pytest.mark.parametrize(
    ("probability", "target", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 2), dtype=bool), "equal"),
        (np.ones((0, 2)), np.ones((0, 2), dtype=bool), "equal"),
        (np.ones((1, 2)), np.ones((1, 2)), "expected bool"),
        (np.array([[0.5, np.nan]]), np.array([[True, False]]), "NaN"),
        (np.array([[0.5, 1.5]]), np.array([[True, False]]), "outside"),
        (np.array([[0.5, 0.5]]), np.array([[True, True]]), "exactly one label"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(probability, target, message):
    with pytest.raises(ValueError, match=message):
        accuracy(probability, target)
