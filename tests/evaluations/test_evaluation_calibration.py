"""An evaluation keeps the calibration and the label sets that it was made with, whatever happens to it later."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bayes_panns.core.errors import EvaluationError
from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import bootstrap, label_sets, set_quality
from bayes_panns.posterior import Calibration
from bayes_panns.predictions import decompose

LABELS = ("a", "b", "c")


def calibration(threshold, temperature=1.5):
    return Calibration(
        temperature=temperature, threshold=threshold, coverage=0.9, draws=4, clips=(20, 20), data=("held-out.h5",)
    )


def evaluation(seed=0, *, clips=20, draws=4, threshold=None, provenance=None, **options):
    generator = torch.Generator().manual_seed(seed)
    target = np.eye(3, dtype=bool)[np.arange(clips) % 3]
    logits = 2 * torch.from_numpy(target) + 2 * torch.randn(draws, clips, 3, generator=generator, dtype=torch.float64)
    return Evaluation.of(
        decompose(logits.softmax(dim=2), "one-of-k"),
        target,
        names=[f"{seed}-{clip}" for clip in range(clips)],
        labels=LABELS,
        calibration=None if threshold is None else calibration(threshold),
        provenance={"posterior": f"p{seed}", "stores": ["s.h5"], "folds": [seed], "ood": []} | (provenance or {}),
        **options,
    )


def test_label_sets_are_those_of_the_calibration():
    made = evaluation(threshold=0.2)
    np.testing.assert_array_equal(made.sets, made.uncertainty.probability >= 0.2)
    quality = set_quality(made.sets, made.target)
    assert (made.metrics["set/coverage"], made.metrics["set/size"]) == (quality.coverage, quality.size)
    assert 1 < quality.size < 3
    without = evaluation()
    assert without.sets is None
    assert without.calibration is None
    assert not any(name.startswith("set/") for name in without.metrics | without.intervals(resamples=2))


def test_intervals_of_label_sets_hold_their_value_and_resample_recordings():
    made = evaluation(threshold=0.2, clips=60)
    found = made.intervals(resamples=200)
    for name in ("set/coverage", "set/size"):
        assert found[name].value == made.metrics[name]
        assert found[name].low < found[name].value < found[name].high
    recordings = replace(made, sources=np.array([f"r{clip // 10}" for clip in range(60)]))
    for seed in (0, 7):
        own = {"groups": recordings.groups, "resamples": 30, "seed": seed}
        expected = bootstrap(lambda sets, target: sets.sum(axis=1).mean(), made.sets, made.target, **own)
        assert recordings.intervals(resamples=30, seed=seed)["set/size"] == expected


def test_calibration_and_sets_come_back_from_disk(tmp_path):
    made = evaluation(threshold=0.2)
    made.save(tmp_path / "e")
    found = Evaluation.load(tmp_path / "e")
    assert found.calibration == made.calibration
    np.testing.assert_array_equal(found.sets, made.sets)
    assert found.metrics == pytest.approx(made.metrics)
    table = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert table["calibration"]["threshold"] == 0.2
    assert table["format_version"] == 1


def test_pooled_folds_keep_the_sets_of_their_own_thresholds(tmp_path):
    strict, loose = evaluation(1, threshold=0.5), evaluation(2, threshold=0.05)
    pooled = Evaluation.pool([strict, loose])
    np.testing.assert_array_equal(pooled.sets[:20], label_sets(strict.uncertainty.probability, 0.5))
    np.testing.assert_array_equal(pooled.sets[20:], label_sets(loose.uncertainty.probability, 0.05))
    for name in ("set/coverage", "set/size"):
        assert pooled.metrics[name] == pytest.approx((strict.metrics[name] + loose.metrics[name]) / 2)
        assert strict.metrics[name] < loose.metrics[name]
    # Two calibrations are not one.
    assert pooled.calibration is None
    pooled.save(tmp_path / "e")
    np.testing.assert_array_equal(Evaluation.load(tmp_path / "e").sets, pooled.sets)
    same = Evaluation.pool([evaluation(1, threshold=0.5), evaluation(2, threshold=0.5)])
    assert same.calibration == calibration(0.5)


@pytest.mark.parametrize("order", [1, -1])
def test_pooled_folds_have_no_sets_if_one_has_none(order):
    pooled = Evaluation.pool([evaluation(1, threshold=0.5), evaluation(2)][::order])
    assert pooled.sets is None
    assert pooled.calibration is None
    assert not any(name.startswith("set/") for name in pooled.metrics)


def test_an_evaluation_of_clips_without_labels_is_kept(tmp_path):
    """Undefined metrics are NaN in memory, and left out on disk."""
    u = decompose(torch.rand(3, 5, 2, dtype=torch.float64), "multi-label")
    made = Evaluation.of(
        u,
        np.zeros((5, 2), dtype=bool),
        names=list("vwxyz"),
        labels=("a", "b"),
        calibration=calibration(0.5),
        provenance={},
    )
    assert np.isnan(made.metrics["set/coverage"])
    assert np.isnan(made.intervals(resamples=3)["set/coverage"].low)
    made.save(tmp_path / "e")
    text = (tmp_path / "e" / "evaluation.json").read_text()
    assert "NaN" not in text
    assert "set/coverage" not in json.loads(text)["metrics"]
    assert Evaluation.load(tmp_path / "e").metrics == pytest.approx(made.metrics, nan_ok=True)


def test_a_mixture_has_no_sets():
    one = evaluation(1, threshold=0.2)
    mixed = Evaluation.mix([one, one])
    assert (mixed.sets, mixed.calibration) == (None, None)
    assert "set/size" not in mixed.metrics


def test_tempering_drops_calibration_and_sets():
    """The threshold was fitted at another temperature: sets made with it would not have their coverage."""
    single = evaluation(1, draws=1, threshold=0.2)
    assert single.sets is not None
    soft = single.tempered(2.0)
    assert (soft.sets, soft.calibration) == (None, None)
    assert "set/coverage" not in soft.metrics
    assert "set/coverage" not in soft.intervals(resamples=2)
    assert soft.provenance == single.provenance | {"temperature": 2.0}


def test_pooling_keeps_what_all_folds_agree_on():
    pooled = Evaluation.pool([evaluation(seed) for seed in (1, 2)])
    assert pooled.provenance == {"stores": ["s.h5"], "ood": [], "folds": [[1], [2]], "pooled": 2}


def test_leaks_are_added_over_folds_and_bounded_in_a_mixture():
    leaks = [{"leaks": {"own": own, "upstream": upstream}} for own, upstream in ((1, 5), (3, 2))]
    parts = [evaluation(1, provenance=each) for each in leaks]
    assert Evaluation.pool(parts).provenance["leaks"] == {"own": 4, "upstream": 7}
    assert Evaluation.mix(parts).provenance["leaks"] == {"own": 3, "upstream": 5}
    assert parts[0].provenance["leaks"] == {"own": 1, "upstream": 5}
    # Unknown for one is unknown for all.
    for combine in (Evaluation.pool, Evaluation.mix):
        assert "leaks" not in combine([parts[0], evaluation(1)]).provenance
        assert "leaks" not in combine([evaluation(1), parts[0]]).provenance


def test_draws_are_those_that_were_made(tmp_path):
    drawn, at_mean = evaluation(draws=4), evaluation(draws=1)
    assert (drawn.draws, drawn.metrics["draws"]) == (4, 4)
    mean = Evaluation.of(
        at_mean.uncertainty, at_mean.target, names=at_mean.names, labels=LABELS, draws=0, provenance={"folds": "all"}
    )
    assert (mean.draws, mean.metrics["draws"], mean.uncertainty.draws) == (0, 0, 1)
    for made in (drawn, mean):
        made.save(tmp_path / "e")
        found = Evaluation.load(tmp_path / "e")
        assert (found.draws, found.metrics["draws"]) == (made.draws, made.draws)
        assert found.uncertainty.draws == made.uncertainty.draws
        assert found.provenance == made.provenance
    assert Evaluation.mix([drawn, drawn]).draws == 8
    assert Evaluation.mix([mean, mean]).draws == 0
    assert Evaluation.pool([mean, mean]).draws == 0
    with pytest.raises(EvaluationError, match="same labels, task and draws"):
        Evaluation.pool([mean, at_mean])


def test_nothing_is_neither_pooled_nor_mixed():
    with pytest.raises(EvaluationError, match="can be pooled"):
        Evaluation.pool([])
    with pytest.raises(EvaluationError, match="no evaluations to mix"):
        Evaluation.mix([])


class TestOfTheFormatBefore:
    """Evaluations used to keep the threshold in their provenance, and the draws that were asked for."""

    @staticmethod
    def write(folder, **provenance):
        evaluation().save(folder)
        path = folder / "evaluation.json"
        table = json.loads(path.read_text())
        del table["calibration"], table["digest"]
        table["provenance"] |= provenance
        path.write_text(json.dumps(table))
        return Evaluation.load(folder)

    def test_sets_are_made_with_the_threshold_of_then(self, tmp_path):
        found = self.write(tmp_path / "e", threshold=0.3)
        np.testing.assert_array_equal(found.sets, found.uncertainty.probability >= 0.3)
        assert found.metrics["set/size"] == found.sets.sum(axis=1).mean()
        assert found.calibration is None
        assert "threshold" not in found.provenance
        found.save(tmp_path / "again")
        np.testing.assert_array_equal(Evaluation.load(tmp_path / "again").sets, found.sets)

    def test_a_pooled_one_knew_one_threshold_only(self, tmp_path):
        assert self.write(tmp_path / "e", threshold=0.3, pooled=2).sets is None

    def test_a_pass_at_the_mean_stays_one(self, tmp_path):
        found = self.write(tmp_path / "e", draws=0)
        assert (found.draws, found.uncertainty.draws) == (0, 4)

    def test_draws_asked_for_are_not_those_made(self, tmp_path):
        found = self.write(tmp_path / "e", draws=3)
        assert found.metrics["draws"] == 4
