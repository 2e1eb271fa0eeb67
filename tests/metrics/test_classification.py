import numpy as np
import pytest

from bayes_panns.metrics import (
    accuracy,
    auc,
    average_precision,
    clip_loss,
    d_prime,
    label_ranking_average_precision,
    mean_auc,
    mean_average_precision,
    top_label,
)

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


def test_each_labels_own_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.1], [0.3, 0.1]])
    t = np.array([[False, False], [True, False], [True, False]])
    np.testing.assert_allclose(average_precision(p, t), [(1 / 2 + 2 / 3) / 2, np.nan])
    np.testing.assert_allclose(auc(p, t), [0, np.nan])


def test_the_ranking_of_a_clips_labels_by_hand():
    p = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.5, 0.5, 0.1], [0.2, 0.3, 0.4], [0.2, 0.3, 0.4]])
    t = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=bool)
    # First and third: (1/1 + 2/3) / 2. Second. Level with another: of two, one. None, and all: nothing to get wrong.
    np.testing.assert_allclose(label_ranking_average_precision(p, t), [5 / 6, 1 / 2, 1 / 2, 1, 1])


def test_the_loss_of_a_clip():
    np.testing.assert_array_equal(clip_loss(P, T, "one-of-k"), [0, 0, 1, 0])
    # The third clip's label comes second.
    np.testing.assert_array_equal(clip_loss(P, T, "multi-label"), [0, 0, 0.5, 0])
    with pytest.raises(ValueError, match="task 'both'"):
        clip_loss(P, T, "both")


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
    assert label_ranking_average_precision(p, t) == 1


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
