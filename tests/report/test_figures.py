import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from bayes_panns.report import comparison, save, training_curves, uncertainty_histograms


@pytest.fixture
def ax():
    return Figure(figsize=(4, 3), layout="constrained").subplots()


@pytest.fixture
def check(tmp_path):
    """Saves a figure and checks that it is a picture with something on it."""

    def check(figure):
        save(figure, tmp_path / "figure.png")
        pixels = imread(tmp_path / "figure.png")
        assert pixels.shape[:2] == tuple(int(side) for side in figure.get_size_inches()[::-1] * 150)
        assert 0.01 < (pixels[..., :3] < 0.99).any(axis=2).mean() < 0.9
        assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]

    return check


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_uncertainty_histograms(ax, check):
    groups = {"right": np.array([0.1, 0.2, 0.1]), "wrong": np.array([]), "out of distribution": np.array([0.9])}
    uncertainty_histograms(ax, groups)
    check(ax.figure)
    # The empty group is gone, and the others keep the colours they have in every picture.
    assert texts(ax) == ["right (3)", "out of distribution (1)"]
    assert ax.patches[1].get_edgecolor() != ax.patches[3].get_edgecolor()
    for patch in ax.patches:
        assert patch.get_data().values.sum() == pytest.approx(1)


def test_uncertainty_histograms_of_equal_scores(ax, check):
    uncertainty_histograms(ax, {"right": np.zeros(5)}, label="mutual information / nats")
    check(ax.figure)
    assert ax.get_xlabel() == "mutual information / nats"


def line(epoch, **values):
    return {"epoch": epoch, "nll": 2 / epoch, "kl": 1e6 * epoch, "kl_weight": 0.1 * epoch} | values


def test_training_curves(check):
    validated = {"val/nll": 1.5, "val/accuracy": 0.5, "val/other": None}
    figure = training_curves([line(1), line(2, **validated), line(3), line(4, **validated)])
    check(figure)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["NLL / nats per clip", "KL to the prior / nats", "Weight of the KL", "Validation: Accuracy"]
    assert texts(figure.axes[0]) == ["training", "validation"]
    assert list(figure.axes[3].lines[0].get_xdata()) == [2, 4]


def test_training_curves_of_one_epoch_without_kl(check):
    figure = training_curves([{"epoch": 0, "nll": 1.0}])
    check(figure)
    assert len(figure.axes) == 1
    assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


def test_comparison(check):
    results = {
        "Det": {"cls/accuracy": 0.8, "cal/nll": 0.7, "cal/ece": 0.1},
        "Flip": {"cls/accuracy": 0.9, "cal/nll": 0.4, "cal/ece": float("nan")},
    }
    figure = comparison(results)
    check(figure)
    # None has an OOD AUROC.
    assert [ax.get_title() for ax in figure.axes] == ["accuracy", "NLL / nats", "ECE"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["higher is better →", "← lower is better", "← lower is better"]
    for ax, filled in zip(figure.axes, [1, 1, 0], strict=True):
        best = [dot.get_ydata()[0] for dot in ax.lines if dot.get_markerfacecolor() != "none"]
        assert best == [filled]
    assert len(figure.axes[2].lines) == 1


def test_comparison_of_a_metric_that_may_be_infinite_or_is_unknown(check):
    results = {"a": {"cls/d_prime": float("inf"), "seconds": 1.0}, "b": {"cls/d_prime": 2.0, "seconds": 2.0}}
    figure = comparison(results, ["cls/d_prime", "seconds"])
    check(figure)
    assert all(dot.get_markerfacecolor() == "none" for ax in figure.axes for dot in ax.lines)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no metrics"):
        training_curves([])
    with pytest.raises(ValueError, match="cls/accuracy"):
        comparison({"Flip": {}})


def test_a_failed_save_leaves_what_was_there(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"before")
    figure = Figure()
    figure.text(0.5, 0.5, "$\\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save(figure, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
