"""Every result draws itself: what is drawn is what was measured, and one look sets text apart from data."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bayes_panns.metrics import (
    Interval,
    brier_split,
    classwise_reliability,
    detection,
    pavpu,
    plot_intervals,
    reliability,
    risk_coverage,
    set_quality,
)
from bayes_panns.metrics.plotting import INK, PALETTE


@pytest.fixture
def ax():
    return Figure(figsize=(4, 3), layout="constrained").subplots()


@pytest.fixture(autouse=True)
def _rendered(ax):
    """Whatever is drawn, renders, and its text and axes are of one colour, which a page may replace."""
    yield
    ax.figure.canvas.draw()
    for axes in (ax, *ax.child_axes):
        legend = axes.get_legend()
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        for text in (
            axes.xaxis.label,
            axes.yaxis.label,
            axes.title,
            *ticks,
            *axes.texts,
            *(legend.texts if legend else ()),
        ):
            assert to_hex(text.get_color()) == INK
        assert {to_hex(axes.spines[side].get_edgecolor()) for side in ("left", "bottom")} == {INK}
        assert all(to_hex(patch.get_facecolor()).upper() in PALETTE for patch in axes.patches)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def curves(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize("equal_mass", [False, True])
def test_reliability_bars_end_where_predictions_came_true(equal_mass, ax):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 60)
    bins = reliability(p, np.eye(3, dtype=bool)[rng.integers(0, 3, 60)], "one-of-k", equal_mass=equal_mass)
    bins.plot(ax)
    filled = bins.count > 0
    n = filled.sum()
    bars, gaps = ax.patches[:n], ax.patches[n:]
    ends = np.c_[bins.confidence, bins.frequency][filled]
    np.testing.assert_allclose([bar.get_height() for bar in bars], ends.min(axis=1))
    assert len(gaps) == n
    np.testing.assert_allclose(
        sorted(bar.get_y() + bar.get_height() for bar in gaps), sorted(ends.max(axis=1)), atol=1e-12
    )
    for bar, left, right in zip(bars, bins.edges[:-1][filled], bins.edges[1:][filled], strict=True):
        assert left <= bar.get_x() < bar.get_x() + bar.get_width() <= right + 1e-12
    (strip,) = ax.child_axes
    np.testing.assert_array_equal([patch.get_height() for patch in strip.patches], bins.count[filled])
    assert f"{'ACE' if equal_mass else 'ECE'} {bins.error:.3f}" in legend(ax)
    assert (ax.get_xlabel(), strip.get_yscale()) == ("confidence", "linear")


def test_reliability_with_one_bin_filled(ax):
    reliability(np.array([[0.75, 0.25]] * 4), np.eye(2, dtype=bool)[[0, 0, 1, 1]], "one-of-k").plot(ax)
    # Right half the time at a confidence of 0.75: the bar ends at 0.5 and the gap reaches to 0.75.
    bar, gap = ax.patches
    assert (bar.get_y(), bar.get_height()) == (0, 0.5)
    assert (gap.get_y(), gap.get_height()) == (0.5, 0.25)
    assert to_hex(gap.get_facecolor()).upper() == PALETTE[1]


def test_reliability_of_a_label(ax):
    p = np.array([[0.7], [0.2], [0.2]])
    classwise_reliability(p, p > 0.5)[0].plot(ax)
    assert ax.get_xlabel() == "probability of the label"
    assert ax.child_axes[0].get_yscale() == "log"


def test_the_parts_of_the_brier_score_add_up(ax):
    p, t = np.array([[0.2], [0.4], [0.6], [0.8]]), np.array([[False], [True], [False], [True]])
    brier_split(p, t, "multi-label").plot(ax)
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    np.testing.assert_allclose(spans, [(0, 0.25), (0.125, 0.25), (0.125, 0.2), (0, 0.2)])
    assert [text.get_text() for text in ax.texts] == ["0.250", "0.125", "0.075", "0.200"]


def test_risk_coverage_curves_share_an_axes(ax):
    wrong = np.array([False, False, True, True])
    risk_coverage(np.arange(4.0), wrong).plot(ax, "good")
    risk_coverage(-np.arange(4.0), wrong).plot(ax, "bad", color=PALETTE[5])
    assert legend(ax) == ["good (AURC 0.208)", "bad (AURC 0.792)"]
    good, bad = ax.lines
    np.testing.assert_allclose(good.get_xydata(), [(0.25, 0), (0.5, 0), (0.75, 1 / 3), (1, 1 / 2)])
    assert (good.get_color(), bad.get_color()) == (PALETTE[0], PALETTE[5])
    # All of both fits.
    assert ax.get_ylim() == (0, pytest.approx(1.1))


@pytest.mark.parametrize("wrong", [False, True])
def test_risk_coverage_of_one_clip_is_a_dot(wrong, ax):
    risk_coverage(np.array([0.1]), np.array([wrong])).plot(ax)
    assert ax.lines[0].get_marker() == "o"
    assert legend(ax) == [f"AURC {wrong:.3f}"]


def test_more_curves_than_colours_stay_apart(ax):
    for index in range(9):
        risk_coverage(np.arange(6.0), np.arange(6) > 3).plot(ax, str(index))
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 9


def test_detection_curves_share_a_diagonal(ax):
    first = detection(np.array([0.1, 0.2, 0.6, 0.3]), np.array([0.5, 0.9]))
    first.plot(ax, "entropy")
    detection(np.zeros(2), np.zeros(2)).plot(ax)
    drawn = curves(ax)
    assert list(drawn) == legend(ax) == ["entropy (AUROC 0.875)", "AUROC 0.500"]
    np.testing.assert_array_equal(drawn["entropy (AUROC 0.875)"].get_xydata(), np.c_[first.false_alarm, first.detected])
    assert len(ax.lines) == 3


def test_pavpu_steps_from_the_share_of_wrong_clips(ax):
    pavpu(np.array([0.1, 0.2, 0.2, 0.9, 0.5]), np.array([False, False, True, True, False])).plot(ax, "entropy")
    (line,) = ax.lines
    np.testing.assert_allclose(
        line.get_xydata(), [(0.1, 0.4), (0.1, 0.6), (0.2, 0.6), (0.5, 0.8), (0.9, 0.6)], atol=1e-12
    )
    assert line.get_drawstyle() == "steps-post"
    assert legend(ax) == ["entropy (0.800 at the middle)"]


def test_set_sizes_and_their_coverage(ax):
    sets = np.array([[True, False, False], [True, True, False], [True, True, False], [False, False, False]])
    target = np.eye(3, dtype=bool)[[0, 0, 2, 1]]
    set_quality(sets, target).plot(ax)
    assert [bar.get_height() for bar in ax.patches] == [0.25, 0.25, 0.5]
    dots = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_array_equal(dots.get_xydata(), [(0, 0), (1, 1), (2, 0.5)])
    assert "coverage 0.500, mean size 1.25" in legend(ax)
    assert all(tick == int(tick) for tick in ax.get_xticks())


def test_intervals_are_rows(ax):
    plot_intervals(
        ax,
        {
            "accuracy": Interval(0.8, 0.7, 0.9),
            "difference": Interval(0.05, -0.05, 0.1),
            "undefined": Interval(np.nan, np.nan, np.nan),
            "unbounded": Interval(2.0, 1.5, np.inf),
        },
    )
    bars = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]
    # The third is the line at 0.
    np.testing.assert_array_equal(bars, [(0.7, 0.9), (-0.05, 0.1), (0, 0)])
    dots = [line.get_xydata()[0].tolist() for line in ax.lines if line.get_marker() == "o"]
    assert dots == [[0.8, 0], [0.05, 1], [2, 3]]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["accuracy", "difference", "undefined", "unbounded"]
    assert ax.get_ylim() == (3.5, -0.5)
