import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bayes_panns.uncertainty import Moments, concatenate, decompose

TASKS = ("one-of-k", "multi-label")


@st.composite
def draws_of(draw, task):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(2, 5)))
    raw = draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1)))
    if task == "one-of-k":
        raw = raw + 1e-9
        raw = raw / raw.sum(axis=2, keepdims=True)
    return torch.from_numpy(raw)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_both_splits_are_exact_and_have_their_signs(task, data):
    u = decompose(data.draw(draws_of(task)), task)
    np.testing.assert_allclose(u.total, u.aleatoric + u.epistemic, atol=1e-15)
    np.testing.assert_allclose(u.entropy, u.expected_entropy + u.mutual_information, atol=1e-14)
    for values in (u.total, u.aleatoric, u.epistemic, u.mutual_information):
        assert (values >= 0).all()
    assert ((u.probability >= 0) & (u.probability <= 1)).all()
    per_clip = u.per_clip()
    np.testing.assert_allclose(per_clip["total"], per_clip["aleatoric"] + per_clip["epistemic"], atol=1e-14)
    if task == "one-of-k":
        np.testing.assert_allclose(per_clip["total"], 1 - (u.probability**2).sum(axis=1), atol=1e-14)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_streaming_agrees_with_the_formulas_over_all_draws_at_once(task, data):
    draws = data.draw(draws_of(task))
    u = decompose(draws, task)
    p = draws.numpy()
    np.testing.assert_allclose(u.probability, p.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(u.aleatoric, (p * (1 - p)).mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(u.epistemic, p.var(axis=0), atol=1e-15)

    def entropy(p):
        terms = [p] if task == "one-of-k" else [p, 1 - p]
        return sum(-(q * np.log(np.where(q > 0, q, 1))).sum(axis=-1) for q in terms)

    np.testing.assert_allclose(u.entropy, entropy(p.mean(axis=0)), atol=1e-13)
    np.testing.assert_allclose(u.expected_entropy, entropy(p).mean(axis=0), atol=1e-13)


@pytest.mark.parametrize("mirrored", [False, True])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_standard_error_is_that_of_groups_that_depend_on_each_other(mirrored, data):
    draws = data.draw(draws_of("multi-label"))
    u = decompose(draws, "multi-label", mirrored=mirrored)
    p = draws.numpy()
    groups = [p[i : i + 2] for i in range(0, len(p), 2)] if mirrored else [p[i : i + 1] for i in range(len(p))]
    if len(groups) < 2:
        assert np.isnan(u.standard_error).all()
        return
    residuals = sum((group - p.mean(axis=0)).sum(axis=0) ** 2 for group in groups)
    expected = np.sqrt(len(groups) / (len(groups) - 1) * residuals) / len(p)
    np.testing.assert_allclose(u.standard_error, expected, atol=1e-7)
    if not mirrored:
        np.testing.assert_allclose(u.standard_error, p.std(axis=0, ddof=1) / len(p) ** 0.5, atol=1e-7)


def test_mirrored_draws_need_their_own_standard_error():
    """Of 20 mirrored draws of a nearly linear function: over pairs the error is right, over draws far too large."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 10, generator=generator)
    noise = torch.stack([noise, -noise], dim=2).flatten(1)  # (repetitions, 20 draws)
    p = (0.5 + 0.8 * noise + 0.2 * noise**2).sigmoid().double()
    means = p.mean(dim=1).std()
    pairs = decompose(p.T[..., None], "multi-label", mirrored=True).standard_error
    alone = decompose(p.T[..., None], "multi-label").standard_error
    assert (pairs**2).mean() ** 0.5 == pytest.approx(means.item(), rel=0.05)
    assert (alone**2).mean() ** 0.5 > 2 * means
    # The population variance is on average the squared error too small.
    u = decompose(p.T[..., None], "multi-label", mirrored=True)
    assert (u.epistemic + u.standard_error**2).mean() == pytest.approx(p.var().item(), rel=0.02)


def test_one_of_k_by_hand():
    # Two draws that are sure of opposite labels: nothing is ambiguous, the model just does not know.
    u = decompose(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), "one-of-k")
    np.testing.assert_array_equal(u.probability, [[0.5, 0.5]])
    np.testing.assert_array_equal(u.aleatoric, [[0, 0]])
    np.testing.assert_array_equal(u.epistemic, [[0.25, 0.25]])
    np.testing.assert_allclose(u.mutual_information, [np.log(2)])
    assert u.per_clip()["epistemic"] == 0.5
    # Two draws that agree on a coin's toss: all of it is ambiguity.
    u = decompose(torch.full((2, 1, 2), 0.5), "one-of-k")
    np.testing.assert_array_equal(u.aleatoric, [[0.25, 0.25]])
    np.testing.assert_array_equal(u.mutual_information, [0])
    np.testing.assert_allclose(u.entropy, [np.log(2)])


def test_multi_label_entropy_adds_up_the_labels():
    u = decompose(torch.tensor([[[0.5, 0.5, 0.0]]]), "multi-label")
    np.testing.assert_allclose(u.entropy, [2 * np.log(2)])


@pytest.mark.parametrize("task", TASKS)
def test_a_single_draw_has_no_epistemic_part(task):
    u = decompose(torch.rand(1, 7, 5).softmax(dim=2), task)
    assert u.draws == 1
    assert not u.epistemic.any()
    assert not u.mutual_information.any()
    np.testing.assert_array_equal(u.aleatoric, u.total)


def test_float32_draws_far_from_zero_variance_keep_their_precision():
    # Sum of squares minus square of the sum would lose this variance altogether.
    draws = torch.tensor([0.9999999, 1.0], dtype=torch.float32).repeat(500)[:, None, None]
    u = decompose(draws, "multi-label")
    np.testing.assert_allclose(u.epistemic.item(), draws.double().var(correction=0).item(), rtol=1e-9)
    assert u.probability.dtype == np.float64


def test_draws_may_come_from_inference_mode_and_carry_gradients():
    moments = Moments("one-of-k")
    with torch.inference_mode():
        moments.update(torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    moments.update(torch.tensor([[0.75, 0.25]], dtype=torch.float64, requires_grad=True))
    u = moments.result()
    np.testing.assert_array_equal(u.probability, [[0.5, 0.5]])
    np.testing.assert_array_equal(u.epistemic, [[0.0625, 0.0625]])


def test_a_result_does_not_change_when_more_draws_come():
    moments = Moments("multi-label")
    moments.update(torch.tensor([[0.0]]))
    first = moments.result()
    moments.update(torch.tensor([[1.0]]))
    assert first.probability.item() == 0
    assert moments.result().probability.item() == 0.5


def test_batches_of_clips_join_in_order():
    draws = torch.rand(4, 5, 3)
    whole = decompose(draws, "multi-label")
    joined = concatenate([decompose(draws[:, :2], "multi-label"), decompose(draws[:, 2:], "multi-label")])
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(joined, name), values)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="expected 'one-of-k' or 'multi-label'"):
        Moments("multilabel")
    moments = Moments("one-of-k")
    with pytest.raises(ValueError, match="no draws"):
        moments.result()
    with pytest.raises(ValueError, match="expected \\(N, K\\)"):
        moments.update(torch.rand(3))
    moments.update(torch.rand(3, 2))
    with pytest.raises(ValueError, match=r"expected \(3, 2\)"):
        moments.update(torch.rand(2, 2))
    with pytest.raises(ValueError, match="one number of draws"):
        concatenate([decompose(torch.rand(t, 2, 2), "multi-label") for t in (1, 2)])
    with pytest.raises(ValueError, match="parts"):
        concatenate([])
