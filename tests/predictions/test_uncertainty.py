import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.figure import Figure

from bayes_panns.predictions import UncertaintyAccumulator, concatenate, decompose, mixture

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
@settings(max_examples=50)
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
@settings(max_examples=50)
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


PARTS = ("probability", "aleatoric", "epistemic", "total", "entropy", "expected_entropy", "mutual_information")


def part(u, name):
    return u.per_clip()[name.removeprefix("clip_")] if name.startswith("clip_") else getattr(u, name)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=25)
@given(data=st.data())
def test_standard_errors_are_the_textbooks_jackknife(task, mirrored, data):
    """Over draws or pairs that are left out one at a time; the last pair may be half a one."""
    draws = data.draw(draws_of(task))
    u = decompose(draws, task, mirrored=mirrored, covariance=True)
    size = 2 if mirrored else 1
    groups = [range(start, min(start + size, len(draws))) for start in range(0, len(draws), size)]
    names = (*PARTS, "clip_total", "clip_aleatoric", "clip_epistemic", "covariance")
    if len(groups) < 2:
        assert all(np.isnan(getattr(u.standard_error, name)).all() for name in names)
        return
    rest = [[draw for draw in range(len(draws)) if draw not in group] for group in groups]
    left = [decompose(draws[index], task, covariance=True) for index in rest]
    h = np.array([len(draws) / len(group) for group in groups])
    for name in names:
        whole = part(u, name)
        estimates = np.stack([part(each, name) for each in left])
        ratio = h.reshape(-1, *[1] * whole.ndim)
        pseudo = ratio * whole - (ratio - 1) * estimates
        centre = len(groups) * whole - ((1 - 1 / ratio) * estimates).sum(axis=0)
        expected = np.sqrt(((pseudo - centre) ** 2 / (ratio - 1)).mean(axis=0))
        # What is clamped at 0 differs by rounding, and the square root makes that 1e-8.
        np.testing.assert_allclose(getattr(u.standard_error, name), expected, atol=2e-7)


def test_the_standard_error_of_a_mean_is_that_of_the_draws():
    draws = torch.rand(17, 4, 3, dtype=torch.float64)
    error = decompose(draws, "multi-label").standard_error
    np.testing.assert_allclose(error.probability, draws.std(dim=0) / 17**0.5, rtol=1e-12)
    np.testing.assert_allclose(error.aleatoric, (draws * (1 - draws)).std(dim=0) / 17**0.5, rtol=1e-12)


@pytest.mark.parametrize("draws", [20, 90])
def test_standard_errors_tell_how_repetitions_spread(draws):
    """Within 10 %, for every part and the covariance, also with more draws than groups.

    No p is near 1/2, where p (1 - p) is flat and a first-order error is none.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([1.5, 0.0, -1.0]) + 0.4 * torch.randn(draws, 3000, 3, generator=generator)
    logits[..., 1] += 0.5 * logits[..., 0]
    u = decompose(logits.softmax(dim=2), "one-of-k", covariance=True)
    for name in (*PARTS, "clip_total", "clip_aleatoric", "clip_epistemic", "covariance"):
        spread = part(u, name).std(axis=0)
        typical = np.sqrt((getattr(u.standard_error, name) ** 2).mean(axis=0))
        np.testing.assert_allclose(typical, spread, rtol=0.1, err_msg=name)


def test_mirrored_draws_need_their_own_standard_error():
    """Of 20 mirrored draws of a nearly linear function: over pairs the error is right, over draws far too large."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 10, generator=generator)
    noise = torch.stack([noise, -noise], dim=2).flatten(1)  # (repetitions, 20 draws)
    p = (0.5 + 0.8 * noise + 0.2 * noise**2).sigmoid().double()
    means = p.mean(dim=1).std()
    u = decompose(p.T[..., None], "multi-label", mirrored=True)
    pairs = u.standard_error.probability
    alone = decompose(p.T[..., None], "multi-label").standard_error.probability
    assert (pairs**2).mean() ** 0.5 == pytest.approx(means.item(), rel=0.05)
    assert (alone**2).mean() ** 0.5 > 2 * means
    # The population variance is on average the squared error too small.
    assert (u.epistemic + pairs**2).mean() == pytest.approx(p.var().item(), rel=0.02)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=50)
@given(data=st.data())
def test_the_covariance_between_labels(task, data):
    draws = data.draw(draws_of(task))
    u = decompose(draws, task, covariance=True)
    p = draws.numpy()
    for clip in range(p.shape[1]):
        np.testing.assert_allclose(u.covariance[clip], np.cov(p[:, clip], rowvar=False, bias=True), atol=1e-15)
    np.testing.assert_allclose(np.diagonal(u.covariance, axis1=1, axis2=2), u.epistemic, atol=1e-15)
    # Of the number of labels present: Var = E[its variance given the weights] + Var[its mean given the weights].
    np.testing.assert_allclose(u.covariance.sum(axis=(1, 2)), p.sum(axis=2).var(axis=0), atol=1e-13)
    if task == "one-of-k":
        np.testing.assert_allclose(u.covariance.sum(axis=2), 0, atol=1e-14)
    np.testing.assert_array_equal(u.epistemic, np.clip(np.diagonal(u.covariance, axis1=1, axis2=2), 0, None))
    plain = decompose(draws, task)
    np.testing.assert_allclose(u.aleatoric, plain.aleatoric, atol=1e-15)
    assert plain.covariance is None


def test_which_labels_are_confused_together():
    # Dog or baby: the draws hear one or the other. Rain comes and goes with wind.
    draws = torch.tensor([[[0.9, 0.1, 0.7, 0.8, 0.5]], [[0.1, 0.9, 0.3, 0.4, 0.5]]])
    u = decompose(draws, "multi-label", covariance=True)
    pairs = u.confused_together(["dog", "baby", "rain", "wind", "silence"])
    assert [pair[:2] for pair in pairs[:1]] == [("dog", "baby")]
    assert pairs[0][2] == pytest.approx(-0.16)
    assert {pair[:2]: pair[2] for pair in pairs}["rain", "wind"] == pytest.approx(0.04)
    correlation = u.correlation()[0]
    assert correlation[0, 1] == pytest.approx(-1)
    assert correlation[2, 3] == pytest.approx(1)
    assert np.isnan(correlation[4]).all()
    with pytest.raises(ValueError, match="4 names for 5 labels"):
        u.confused_together(["dog", "baby", "rain", "wind"])
    with pytest.raises(ValueError, match="covariance=True"):
        decompose(draws, "multi-label").correlation()


def test_pictures_show_the_clips_and_the_labels_confused_together():
    draws = torch.rand(6, 9, 4, generator=torch.Generator().manual_seed(0))
    u = decompose(draws, "multi-label", covariance=True)
    ax = Figure().subplots()
    u.plot(ax, "held out")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), u.expected_entropy)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), u.mutual_information)
    heat = Figure().subplots()
    u.plot_covariance(heat, ["a", "b", "c", "d"], top=3)
    shown = [text.get_text() for text in heat.get_xticklabels()]
    kept = np.sort(np.argsort(-u.epistemic.mean(axis=0))[:3])
    assert shown == [["a", "b", "c", "d"][k] for k in kept]
    np.testing.assert_allclose(heat.images[0].get_array(), u.covariance.mean(axis=0)[np.ix_(kept, kept)])


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
    accumulator = UncertaintyAccumulator("one-of-k")
    with torch.inference_mode():
        accumulator.update(torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    accumulator.update(torch.tensor([[0.75, 0.25]], dtype=torch.float64, requires_grad=True))
    u = accumulator.result()
    np.testing.assert_array_equal(u.probability, [[0.5, 0.5]])
    np.testing.assert_array_equal(u.epistemic, [[0.0625, 0.0625]])


def test_a_result_does_not_change_when_more_draws_come():
    accumulator = UncertaintyAccumulator("multi-label")
    accumulator.update(torch.tensor([[0.0]]))
    first = accumulator.result()
    accumulator.update(torch.tensor([[1.0]]))
    assert first.probability.item() == 0
    assert accumulator.result().probability.item() == 0.5


def test_batches_of_clips_join_in_order():
    draws = torch.rand(4, 5, 3)
    whole = decompose(draws, "multi-label")
    joined = concatenate([decompose(draws[:, :2], "multi-label"), decompose(draws[:, 2:], "multi-label")])
    for name in PARTS:
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
        np.testing.assert_array_equal(getattr(joined.standard_error, name), getattr(whole.standard_error, name))
    assert (joined.draws, joined.task) == (4, "multi-label")
    taken = whole.take(np.array([3, 0]))
    np.testing.assert_array_equal(taken.epistemic, whole.epistemic[[3, 0]])
    np.testing.assert_array_equal(taken.standard_error.clip_epistemic, whole.standard_error.clip_epistemic[[3, 0]])


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="expected 'one-of-k' or 'multi-label'"):
        UncertaintyAccumulator("multilabel")
    accumulator = UncertaintyAccumulator("one-of-k")
    with pytest.raises(ValueError, match="no draws"):
        accumulator.result()
    with pytest.raises(ValueError, match="expected \\(N, K\\)"):
        accumulator.update(torch.rand(3))
    accumulator.update(torch.rand(3, 2))
    with pytest.raises(ValueError, match=r"expected \(3, 2\)"):
        accumulator.update(torch.rand(2, 2))
    with pytest.raises(ValueError, match="number of draws"):
        concatenate([decompose(torch.rand(t, 2, 2), "multi-label") for t in (1, 2)])
    with pytest.raises(ValueError, match="can be joined"):
        concatenate([])


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=50)
@given(data=st.data(), members=st.integers(1, 3))
def test_a_mixture_is_all_draws_together(task, data, members):
    draws = data.draw(draws_of(task))
    generator = torch.Generator().manual_seed(members)
    groups = [draws[:, torch.randperm(draws.shape[1], generator=generator)] for _ in range(members)]
    mixed = mixture([decompose(group, task, covariance=True) for group in groups])
    together = decompose(torch.cat(groups), task, covariance=True)
    for name in (*PARTS, "covariance"):
        np.testing.assert_allclose(getattr(mixed, name), getattr(together, name), atol=1e-12, err_msg=name)
    assert (mixed.draws, mixed.task) == (together.draws, task)
    assert np.isnan(mixed.standard_error.probability).all()
    assert np.isnan(mixed.standard_error.covariance).all()


def test_posteriors_of_a_mixture_count_the_same_whatever_their_draws():
    one = decompose(torch.tensor([[[0.8, 0.2]]]), "one-of-k")
    many = decompose(torch.tensor([[[0.2, 0.8]]] * 9), "one-of-k")
    mixed = mixture([one, many])
    np.testing.assert_allclose(mixed.probability, [[0.5, 0.5]], atol=1e-7)
    # They disagree, and none of them has a doubt of its own.
    np.testing.assert_allclose(mixed.epistemic, [[0.09, 0.09]], atol=1e-7)
    assert mixed.draws == 10
    assert mixed.covariance is None


def test_only_predictions_of_the_same_clips_mix():
    one = decompose(torch.rand(2, 3, 2), "multi-label")
    for other in (
        decompose(torch.rand(2, 4, 2), "multi-label"),
        decompose(torch.rand(2, 3, 2), "one-of-k"),
        decompose(torch.rand(2, 3, 2), "multi-label", covariance=True),
    ):
        with pytest.raises(ValueError, match="can be mixed"):
            mixture([one, other])
    with pytest.raises(ValueError, match="can be mixed"):
        mixture([])


def members(repetitions, pairs, generator, *, same_noise=False, apart=0.0):
    """Mirrored draws of two members of an ensemble, one member after the other: ``(T, repetitions, 1)``."""
    found = []
    for member in range(2):
        if member == 0 or not same_noise:
            noise = torch.randn(pairs, repetitions, generator=generator, dtype=torch.float64)
        logits = 0.4 * torch.stack([noise, -noise], dim=1).flatten(0, 1)
        found.append((1.0 + apart * member + logits + 0.3 * logits**2).sigmoid())
    return torch.cat(found).unsqueeze(2)


@pytest.mark.parametrize("pairs", [6, 15])
def test_standard_errors_of_a_posterior_mixed_with_itself(pairs):
    """Right within 10 %, for every part, if the members draw from their own random numbers."""
    draws = members(4000, pairs, torch.Generator().manual_seed(0))
    u = decompose(draws, "multi-label", mirrored=True)
    for name in (*PARTS, "clip_epistemic"):
        spread = part(u, name).std(axis=0)
        typical = np.sqrt((getattr(u.standard_error, name) ** 2).mean(axis=0))
        np.testing.assert_allclose(typical, spread, rtol=0.1, err_msg=name)


def test_standard_errors_of_an_ensemble_are_never_too_small():
    """Members that disagree make the draws look more spread than the mixture's mean is: errors on the safe side."""
    draws = members(4000, 12, torch.Generator().manual_seed(0), apart=-1.5)
    u = decompose(draws, "multi-label", mirrored=True)
    for name in (*PARTS, "clip_epistemic"):
        typical = np.sqrt((getattr(u.standard_error, name) ** 2).mean(axis=0))
        assert (typical > 0.95 * part(u, name).std(axis=0)).all(), name


def test_members_with_the_same_random_numbers_would_have_errors_too_small():
    """Why an ensemble gives each member a seed of its own: the error would be 0.7 of the truth."""
    draws = members(4000, 12, torch.Generator().manual_seed(0), same_noise=True)
    u = decompose(draws, "multi-label", mirrored=True)
    typical = np.sqrt((u.standard_error.probability**2).mean())
    assert typical == pytest.approx(0.7 * u.probability.std(), rel=0.05)
