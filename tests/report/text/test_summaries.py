"""``inspect``: what a store, a posterior or a run holds, with all digits."""

import numpy as np
import pytest

from bayes_panns.clips import Store, Task, write
from bayes_panns.core.errors import BayesPannsError
from bayes_panns.report import describe
from bayes_panns.svi import read_metrics


def values(text):
    return dict(line.strip().partition("  ")[::2] for line in text.splitlines())


def test_times_and_numbers_keep_their_digits(tmp_path, home):
    samples = 8000 * 40 + 1
    write(tmp_path / "s.h5", np.zeros((2, samples)), np.eye(2, dtype=bool), ("a", "b"), Task.ONE_OF_K, 8000)
    shown = values(describe(tmp_path / "s.h5"))
    assert float(shown["total_seconds"]) == Store(tmp_path / "s.h5").summary()["total_seconds"] == 80.00025
    last = read_metrics(home / "flip" / "metrics.jsonl")[-1]
    assert float(values(describe(home / "flip"))["nll"]) == last["nll"]


def test_a_run_has_its_recipe_its_last_epoch_and_its_posterior(home, make):
    text = describe(home / "flip")
    for part in ("run ", "recipe:", "last epoch:", "posterior ", "provenance:"):
        assert any(line.startswith(part) for line in text.splitlines())
    # A label on one line stays on one line.
    assert make.evil in text
    assert not any(key in text for key in ("scale/", "effective/", "at_prior/"))
    assert "by their widths, the data determine" in values(text)["effective parameters"]


def test_what_cannot_be_described_is_named(tmp_path):
    with pytest.raises(BayesPannsError, match="nowhere: no such file or folder"):
        describe(tmp_path / "nowhere")
    with pytest.raises(BayesPannsError, match=r"is not a store \(a file\), a posterior"):
        describe(tmp_path)
