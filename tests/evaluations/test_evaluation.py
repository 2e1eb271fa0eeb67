import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from bayes_panns.core.errors import BayesPannsError
from bayes_panns.evaluations import Evaluation, is_evaluation
from bayes_panns.metrics import nll
from bayes_panns.predictions import decompose


def evaluation(seed=0, *, clips=8, ood=True, sources=True, draws=6, labels=("a", "b", "c"), **options):
    generator = torch.Generator().manual_seed(seed)

    def predicted(count):
        logits = 2 * torch.randn(draws, count, len(labels), generator=generator)
        return decompose(logits.softmax(dim=2), "one-of-k", mirrored=True, covariance=True)

    return Evaluation.of(
        predicted(clips),
        np.eye(len(labels), dtype=bool)[np.arange(clips) % len(labels)],
        predicted(5) if ood else None,
        names=[f"{seed}-{clip}.wav" for clip in range(clips)],
        labels=labels,
        sources=np.array([f"r{clip // 2}" if clip > 1 else "" for clip in range(clips)]) if sources else None,
        ood_names=["speech.wav"] * 5 if ood else [],
        provenance={"posterior": "p", "stores": ["s.h5"], "folds": [seed], "ood": ["o.h5"]},
        **options,
    )


@pytest.mark.parametrize("ood", [True, False])
@pytest.mark.parametrize("sources", [True, False])
def test_an_evaluation_comes_back_as_it_was(tmp_path, ood, sources):
    kept = evaluation(ood=ood, sources=sources)
    kept.save(tmp_path / "e")
    found = Evaluation.load(tmp_path / "e")
    assert found.metrics == pytest.approx(kept.metrics, nan_ok=True)
    for mine, other in ((kept.uncertainty, found.uncertainty), (kept.ood, found.ood)):
        if mine is None:
            assert other is None
            continue
        for field in fields(mine):
            if field.name != "standard_error":
                np.testing.assert_array_equal(getattr(mine, field.name), getattr(other, field.name))
        for field in fields(mine.standard_error):
            np.testing.assert_array_equal(
                getattr(mine.standard_error, field.name), getattr(other.standard_error, field.name)
            )
    for name in ("names", "labels", "ood_names", "provenance", "task", "draws", "calibration"):
        assert getattr(found, name) == getattr(kept, name)
    np.testing.assert_array_equal(found.groups, kept.groups)
    table = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert table["metrics"]["cal/nll"] == pytest.approx(kept.metrics["cal/nll"])


@pytest.mark.parametrize("known", [(True, True), (True, False), (False, True), (False, False)])
def test_pooled_clips_keep_their_recordings_where_they_are_known(known):
    pooled = Evaluation.pool([evaluation(seed, sources=each) for seed, each in enumerate(known)])
    if not any(known):
        assert pooled.sources is None
        return
    expected = [source for each in known for source in (["", "", *"112233"] if each else [""] * 8)]
    assert [source.removeprefix("r") for source in pooled.sources] == expected
    # Clips of unknown recordings are their own groups; those of one recording are one, whatever their fold.
    assert len(set(pooled.groups)) == sum(source == "" for source in expected) + 3


def test_out_of_distribution_clips_of_one_name_are_one_group():
    assert evaluation().ood_groups.tolist() == [0] * 5
    assert evaluation(ood=False).ood_groups is None


def test_clips_of_one_recording_are_one_group_and_the_unknown_are_their_own():
    groups = evaluation().groups
    assert len(set(groups)) == 5
    assert groups[0] != groups[1]
    assert groups[2] == groups[3] != groups[4]
    assert evaluation(sources=False).groups.tolist() == list(range(8))
    # The same clips under another posterior are the same groups, not new ones.
    twice = Evaluation.pool([evaluation(), evaluation()])
    np.testing.assert_array_equal(twice.groups[:8], twice.groups[8:])


def test_folds_pool_into_one_evaluation():
    folds = [evaluation(1), evaluation(2, sources=False)]
    pooled = Evaluation.pool(folds)
    assert pooled.names == folds[0].names + folds[1].names
    np.testing.assert_array_equal(pooled.uncertainty.probability[8:], folds[1].uncertainty.probability)
    # Accuracy is a mean over clips, so that of equal folds is the folds' mean; NLL as well.
    for name in ("cls/accuracy", "cal/nll", "cal/brier"):
        assert pooled.metrics[name] == pytest.approx(np.mean([fold.metrics[name] for fold in folds]))
    assert len(pooled.ood.entropy) == 10
    assert pooled.provenance["folds"] == [[1], [2]]
    assert pooled.provenance["pooled"] == 2
    assert len(set(pooled.groups)) == 5 + 8


def test_out_of_distribution_clips_of_every_fold_stay_together_in_a_resample():
    """The same predictions twice know no more than once; taken for new clips they would seem to."""
    one = evaluation(clips=40)
    one = replace(one, ood_names=[f"{clip}.wav" for clip in range(5)])
    width = {}
    for name, each in (("one", one), ("twice", Evaluation.pool([one, one]))):
        interval = each.intervals(resamples=300)["ood/auroc"]
        width[name] = interval.high - interval.low
    assert width["twice"] == pytest.approx(width["one"], rel=0.2)


@pytest.mark.parametrize("other", [{"ood": False}, {"draws": 4}, {"labels": ("a", "b", "d")}])
def test_what_does_not_fit_together_is_not_pooled(other):
    with pytest.raises(BayesPannsError, match="same labels, task and draws"):
        Evaluation.pool([evaluation(), evaluation(1, **other)])


def test_a_damaged_evaluation_is_told_in_one_line(tmp_path):
    folder = tmp_path / "e"
    with pytest.raises(BayesPannsError, match="not an evaluation"):
        Evaluation.load(folder)
    evaluation().save(folder)
    assert is_evaluation(folder)
    words = json.loads((folder / "evaluation.json").read_text())
    for change, message in (
        ({"format_version": 99}, "format 99 is newer"),
        ({"labels": ["a"]}, "is damaged|labels"),
        ({"draws": None, "names": None}, "is damaged"),
    ):
        (folder / "evaluation.json").write_text(json.dumps(words | change))
        with pytest.raises(BayesPannsError, match=message) as error:
            Evaluation.load(folder)
        assert "\n" not in str(error.value)
    (folder / "evaluation.json").write_text(json.dumps(words))
    (folder / "predictions.npz").write_bytes(b"PK")
    with pytest.raises(BayesPannsError, match="is damaged"):
        Evaluation.load(folder)


def test_it_replaces_an_evaluation_and_nothing_else(tmp_path):
    evaluation(1).save(tmp_path / "e")
    evaluation(2).save(tmp_path / "e")
    assert Evaluation.load(tmp_path / "e").names[0] == "2-0.wav"
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").write_text("mine")
    with pytest.raises(BayesPannsError, match="is not an evaluation"):
        evaluation().save(tmp_path / "precious")
    assert (tmp_path / "precious" / "notes.txt").read_text() == "mine"


def of_the_same_clips(seed, **options):
    first = evaluation(0, **options)
    return replace(
        evaluation(seed, **options), names=first.names, provenance=first.provenance | {"posterior": f"p{seed}"}
    )


def test_evaluations_of_the_same_clips_mix():
    parts = [of_the_same_clips(seed) for seed in (1, 2, 3)]
    mixed = Evaluation.mix(parts)
    p = np.mean([part.uncertainty.probability for part in parts], axis=0)
    np.testing.assert_allclose(mixed.uncertainty.probability, p, atol=1e-15)
    np.testing.assert_allclose(mixed.ood.probability, np.mean([part.ood.probability for part in parts], axis=0))
    assert mixed.metrics["cal/nll"] == pytest.approx(nll(p, mixed.target, "one-of-k"))
    assert mixed.metrics["draws"] == 18
    assert mixed.provenance["members"] == ["p1", "p2", "p3"]
    assert mixed.provenance["posterior"] is None
    np.testing.assert_array_equal(mixed.groups, parts[0].groups)
    # A mixture of mixtures names those at the bottom.
    assert Evaluation.mix([mixed, mixed]).provenance["members"] == ["p1", "p2", "p3"] * 2


def test_a_mixture_is_written_and_read(tmp_path):
    mixed = Evaluation.mix([of_the_same_clips(seed, ood=False) for seed in (1, 2)])
    mixed.save(tmp_path / "e")
    assert Evaluation.load(tmp_path / "e").metrics == pytest.approx(mixed.metrics, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: replace(e, names=e.names[::-1]), "p2 and p1 have different names"),
        (lambda e: replace(e, ood_names=[]), "different ood_names"),
        (lambda e: replace(e, labels=("a", "b", "x")), "different labels"),
        (lambda e: replace(e, target=e.target[::-1]), "the same target"),
    ],
)
def test_evaluations_of_other_clips_do_not_mix(change, message):
    with pytest.raises(BayesPannsError, match=message):
        Evaluation.mix([of_the_same_clips(1), change(of_the_same_clips(2))])


def test_a_single_draw_can_be_tempered():
    single = of_the_same_clips(1, draws=1)
    same, soft = single.tempered(1.0), single.tempered(2.0)
    np.testing.assert_allclose(same.uncertainty.probability, single.uncertainty.probability, atol=1e-12)
    for before, after in ((single.uncertainty, soft.uncertainty), (single.ood, soft.ood)):
        root = before.probability**0.5
        np.testing.assert_allclose(after.probability, root / root.sum(axis=1, keepdims=True), atol=1e-12)
    assert soft.metrics["cls/accuracy"] == single.metrics["cls/accuracy"]
    assert soft.provenance["temperature"] == 2
    for name in ("names", "labels", "ood_names", "draws"):
        assert getattr(soft, name) == getattr(single, name)
    np.testing.assert_array_equal(soft.sources, single.sources)
    np.testing.assert_array_equal(soft.target, single.target)
    assert soft.uncertainty.covariance is not None
    with pytest.raises(BayesPannsError, match="a mean of 6 draws"):
        of_the_same_clips(1).tempered(2.0)


def test_the_draws_themselves_are_not_kept_on_disk(tmp_path):
    kept = evaluation()
    samples = np.zeros((len(kept.names), 3, len(kept.labels)), np.float32)
    replace(kept, uncertainty=replace(kept.uncertainty, samples=samples)).save(tmp_path / "e")
    assert Evaluation.load(tmp_path / "e").uncertainty.samples is None
