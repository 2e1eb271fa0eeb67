"""What the sections say, against values known by hand or measured another way."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bayes_panns.bayes import Effective
from bayes_panns.clips import Task
from bayes_panns.jobs import StartMemory, WidthMemory, determined, fit
from bayes_panns.metrics import Interval
from bayes_panns.posterior import Calibration, load, save_calibration
from bayes_panns.report import Scoring, Source, SourcePart, describe, metric_name, read_sources, render_page
from bayes_panns.report.page.readings import headlines
from bayes_panns.report.page.sections.training import _groups
from bayes_panns.report.page.sections.weights import _in_words, _of_start, _share_cell, _shares
from bayes_panns.svi import read_metrics


def page_of(make, evaluation, **given):
    part = SourcePart("few", Path("few"), evaluation=evaluation, **given)
    return make.page(render_page([Source("few", "evaluation", (part,))]))


def test_headlines_have_an_interval_and_a_sentence(home, make):
    (source,) = read_sources(home / "flip", make.quick)
    found = make.page(render_page([source]))
    hits = (source.evaluation.uncertainty.probability.argmax(1) == source.evaluation.target.argmax(1)).sum()
    assert f"{hits} of 8 clips are classified correctly" in found.text
    assert "from 25 resamples of the 4 recordings from which the 8 clips were cut" in found.text
    assert re.search(r"Out-of-distribution AUROC.*?\d\.\d{3} \d\.\d{3} to \d\.\d{3}", found.text)
    for metric in source.evaluation.metrics:
        assert metric in {"draws", "clips"} or (metric in found.text and metric_name(metric).title in found.text)


def test_what_the_metrics_say(make):
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.8, 0.2], [0.8, 0.2]])[None]
    target = np.eye(2, dtype=bool)[[0, 1, 0, 1]]
    made = make.evaluation(p, target)
    given = {name: Interval(value, np.nan, np.nan) for name, value in made.metrics.items() if isinstance(value, float)}
    lines = {line.metric: line for line in headlines(made, given)}
    assert lines["cls/accuracy"].value == "0.500"
    assert lines["cls/accuracy"].ends == ""
    assert lines["cls/accuracy"].reading.startswith("2 of 4 clips are classified correctly.")
    assert "35.0 percentage points" in lines["cal/ece"].reading
    assert lines["cal/ece"].reading.endswith("Overall, the model is overconfident.")
    assert "A uniform prediction gives 0.69." in lines["cal/nll"].reading
    assert "no draws" in lines["unc/epistemic"].reading
    assert "cls/map" not in lines
    # Tables by hand: 2 of 2 clips of label a are predicted as a, 2 of 2 of b as well.
    found = page_of(make, made)
    assert re.search(r"The most frequent confusions true label .*? b a 2 100 %", found.text)


SHAPES = {
    "absent classes": ([0, 0, 1], 4, 2, "one-of-k"),
    "one clip": ([1], 3, 2, "one-of-k"),
    "one clip, one draw": ([1], 3, 1, "one-of-k"),
    "one class": ([0, 0, 0], 1, 3, "one-of-k"),
    "one class, one clip, one draw": ([0], 1, 1, "one-of-k"),
    "two classes": ([0, 1, 1, 0], 2, 3, "one-of-k"),
    "no labels": ([None, None], 3, 2, "multi-label"),
    "one label": ([0, None], 1, 2, "multi-label"),
    "one label, one clip": ([0], 1, 1, "multi-label"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ood", [True, False])
def test_few_clips_and_classes_make_a_page(drawn, make, shape, ood):
    clips, labels, draws, task = SHAPES[shape]
    p = np.random.default_rng(0).dirichlet(np.ones(labels), (draws, len(clips)))
    target = np.array([[k == clip for k in range(labels)] for clip in clips])
    found = page_of(make, make.evaluation(p, target, task, ood=p[:, :1] if ood else None))
    assert "Results by label" in found.sections
    assert ("Out-of-distribution detection" in found.sections) == ood
    assert len(found.all("svg")) >= 5
    assert " by ." not in found.text


def recalibrate(folder, temperature, threshold):
    posterior = load(folder)
    posterior.calibration = Calibration(
        temperature=temperature, threshold=threshold, coverage=0.8, draws=4, clips=(5, 5), data=("other.h5",)
    )
    save_calibration(posterior)


def label_sets(found):
    (alt,) = [svg["aria-label"] for svg in found.all("svg") if "label sets" in svg.get("aria-label", "")] or [""]
    return alt


def test_label_sets_are_those_of_the_evaluation_after_a_new_calibration(home, runs, make):
    # Evaluated before any calibration: there are no label sets to show.
    recalibrate(runs / "flip", 0.2, 0.35)
    (source,) = read_sources(runs / "flip", make.quick)
    found = make.page(render_page([source]))
    assert label_sets(found) == ""
    assert "set/size" not in found.text
    # Evaluated with a calibration, and calibrated again since.
    shutil.rmtree(runs / "flip" / "evaluation")
    read_sources(runs / "flip", Scoring(stores=[str(home / "clips.h5")], folds=[3], ood=[home / "noise.h5"], draws=4))
    recalibrate(runs / "flip", 1.0, 0.0)
    (source,) = read_sources(runs / "flip", make.quick)
    found = make.page(render_page([source]))
    coverage, size = (source.evaluation.metrics[f"set/{name}"] for name in ("coverage", "size"))
    assert 0 < size < 3
    assert f"coverage {coverage:.3f}, {size:.2f} labels per set" in label_sets(found)
    assert "a probability of at least 0.350" in found.text
    assert "the temperature, 0.200, were fitted on clips of other.h5" in found.text
    inside = source.evaluation.uncertainty.probability >= 0.35
    assert size == inside.sum(axis=1).mean()
    assert coverage == (inside & source.evaluation.target).any(axis=1).mean()


@pytest.mark.slow
def test_multi_label_has_covariances_and_no_confusions(tmp_path, make, drawn):
    store = make.tones(tmp_path / "tags.h5", Task.MULTI_LABEL)
    fit(make.recipe(store), tmp_path / "run")
    (source,) = read_sources(tmp_path / "run", Scoring(stores=[store], folds=[3], draws=6))
    found = make.page(render_page([source]))
    assert "Epistemic covariance between labels" in found.sections
    assert "Confusions" not in found.sections
    assert "Mean average precision (mAP)" in found.text
    covariance = source.evaluation.uncertainty.covariance.mean(axis=0)
    strongest = max(abs(covariance[i, j]) for i in range(3) for j in range(i))
    assert f"{strongest:.3g}".replace("-", "−") in found.text


def test_signal_to_noise_by_layer(home, make):
    posterior = load(home / "flip")
    loc, scale = posterior.gaussians()["fc_audioset.weight"]
    ratio = (loc.abs() / scale).numpy()
    found = make.page(render_page(read_sources(home / "flip", make.quick)))
    row = re.search(r"fc_audioset\.weight 384 (.*?) fc_audioset\.bias", found.text[found.text.rindex("below 1") :])[1]
    expected = [f"{np.quantile(ratio, q):.3f}" for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
    assert row.split()[:5] == expected
    assert row.split()[5] == f"{100 * (ratio < 1).mean():.0f}"


def test_how_much_of_each_layer_is_the_datas(home, make):
    last = read_metrics(home / "flip" / "metrics.jsonl")[-1]
    found = make.page(render_page(read_sources(home / "flip", make.quick)))
    row = re.search(r"fc_audioset\.weight 384 (.*?) fc_audioset\.bias", found.text[found.text.rindex("below 1") :])[1]
    shares = [last[f"{kind}/fc_audioset.weight"] for kind in ("effective", "at_prior")]
    assert row.replace(" %", "").split()[6:8] == [f"{100 * share:.0f}" for share in shares]
    total = determined(load(home / "flip").provenance)
    assert str(total)[1:] in found.text
    assert "What is left of the starting widths" not in found.text


def test_a_run_of_an_older_version_says_nothing_about_its_widths(runs, make):
    log, header = runs / "flip" / "metrics.jsonl", runs / "flip" / "posterior" / "posterior.toml"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    known = [
        {k: v for k, v in line.items() if not k.startswith(("effective/", "at_prior/", "digest"))} for line in lines
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in known))
    old = [
        line
        for line in header.read_text().splitlines()
        if not line.startswith(("weights", "effective_", "at_prior", "digest"))
    ]
    header.write_text("\n".join(old) + "\n")
    found = make.page(render_page(read_sources(runs / "flip", make.quick)))
    assert "Signal-to-noise ratio by layer" in found.text
    assert "determine" not in found.text
    assert "effective parameters" not in describe(runs / "flip")
    assert "Weights" in found.sections


def test_what_is_left_of_the_start_is_shown(runs, make):
    digest = load(runs / "flip").folder.joinpath("posterior.toml").read_text().split('sha256 = "')[1].split('"')[0]
    memory = StartMemory(
        factor=100,
        sha256=digest,
        parameters={
            "fc1.weight": WidthMemory(weights=300, left=0.9, rank_correlation=0.25),
            "fc1.bias": WidthMemory(weights=100, left=0.1),
        },
    )
    (runs / "flip" / "start.json").write_text(memory.model_dump_json())
    found = make.page(render_page(read_sources(runs / "flip", make.quick)))
    assert "started from widths 100 times as large: 70 % of that factor is left" in found.text
    rows = found.text[found.text.rindex("What is left of the starting widths") :]
    assert "fc1.weight 300 90 % 0.250 fc1.bias 100 10 %" in rows
    # Of another posterior: the run was fitted on since.
    (runs / "flip" / "start.json").write_text(memory.model_copy(update={"sha256": "x"}).model_dump_json())
    found = make.page(render_page(read_sources(runs / "flip", make.quick)))
    assert "What is left of the starting widths" not in found.text


def test_the_folds_widths_are_averaged():
    lines = [{"effective/a": 0.25, "at_prior/a": 1.0}, {"effective/a": 0.75, "at_prior/a": 0.0, "effective/b": -0.5}]
    assert _shares(lines) == {"effective": {"a": 0.5, "b": -0.5}, "at_prior": {"a": 0.5}}
    assert _shares([{"epoch": 1.0}]) == {}
    assert _share_cell(-0.5).text == "−50\u00a0%"
    assert _share_cell(-0.5).bar is None
    words = _in_words([Effective(100, 50.0, 10), Effective(100, 25.0, 20)])
    assert words.startswith(
        " On average over the 2 posteriors, by their widths, the data determine 37.5 of 100 weights"
    )
    pair = [
        StartMemory(factor=factor, sha256="x", parameters={"a": WidthMemory(weights=1, left=left)})
        for factor, left in ((10, 0.2), (100, 0.4))
    ]
    assert "widths 10 or 100 times as large: 30\u00a0% of that factor" in _of_start(pair)


def test_a_posterior_of_points_has_neither_noise_nor_epistemic_clips(home, tmp_path, make):
    fit(make.recipe(str(home / "clips.h5"), guide="det"), tmp_path / "det")
    scoring = Scoring(stores=[str(home / "clips.h5")], folds=[3], draws=4)
    (source,) = read_sources(tmp_path / "det" / "posterior", scoring)
    assert source.kind == "posterior"
    found = make.page(render_page([source]))
    assert "No weight has a Normal posterior" in found.text
    assert "Highest epistemic uncertainty" not in found.text
    assert "The dot is the prediction; it has no draws." in found.text
    assert "none, a single pass at the posterior mean" in found.text
    assert not (tmp_path / "det" / "posterior" / "evaluation").exists()


def test_a_damaged_posterior_costs_its_sections_only(runs, make):
    (source,) = read_sources(runs / "flip", make.quick)
    (runs / "flip" / "posterior" / "guide.safetensors").write_bytes(b"damaged")
    found = make.page(render_page([source]))
    assert not {"Clips to review", "Weights"} & set(found.sections)
    assert "“Weights” is left out: " in found.text
    assert "Calibration" in found.sections


def test_scales_are_grouped_by_the_parts_of_any_network():
    resnet = [f"scale/resnet.layer{k}.{n}.conv.weight" for k in (1, 2) for n in (0, 1)]
    groups = _groups(["scale/conv_block1.conv1.weight", *resnet, "scale/fc.weight", "scale/fc.bias"])
    assert groups == {
        "conv_block1": ["scale/conv_block1.conv1.weight"],
        "resnet.layer1": resnet[:2],
        "resnet.layer2": resnet[2:],
        "fc": ["scale/fc.weight", "scale/fc.bias"],
    }


def test_a_log_without_scales_or_of_several_runs_is_explained(make):
    lines = [{"epoch": 1, "nll": 1.0}, {"epoch": 2, "nll": 0.5, "kl": None}]
    part = SourcePart("a", Path("a"), metrics=lines)
    text = make.page(render_page([Source("cv", "cross-validation", (part, replace(part, name="b")))])).text
    assert "There is a line for each of the 2 runs." in text
    assert "The log has no posterior scales" in text
    assert "training from 1 to 0.5" in render_page([Source("cv", "cross-validation", (part,))])
