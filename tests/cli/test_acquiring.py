"""What acquire chooses, what it leaves out, and that pack takes what comes of it."""

import csv
import json
import re
import sys

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.clips import ClipSet, Task
from bayes_panns.core.choices import AcquireStrategy
from bayes_panns.jobs import acquire
from bayes_panns.metrics.acquisition import choose_batch
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.recipes import read_strategy

RATE = 8000


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def made(path, guide, labels=("dog", "rain", "sea"), task=Task.ONE_OF_K):
    torch.manual_seed(0)
    strategy = read_strategy(guide)
    save(
        Posterior.build(
            net="resnet14-narrow", labels=labels, task=task, sample_rate=RATE, clip_seconds=0.5, strategy=strategy
        ),
        path,
    )
    return path


@pytest.fixture(scope="module")
def posterior(tmp_path_factory):
    return made(tmp_path_factory.mktemp("posterior") / "mine", "det-flip")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Five short files, one of two seconds in a folder below, and one that is no sound."""
    folder = tmp_path_factory.mktemp("sound") / "recordings"
    (folder / "site").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(5):
        soundfile.write(folder / f"c{number}.wav", 0.1 * random.normal(size=4000), RATE)
    soundfile.write(folder / "site" / "long.wav", 0.1 * random.normal(size=4 * 4000), RATE)
    (folder / "bad.wav").write_bytes(b"no sound")
    return folder


def chosen(folder):
    with (folder / "chosen.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def page_data(folder):
    text = (folder / "label.html").read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.mark.parametrize("strategy", AcquireStrategy.words())
def test_each_strategy_chooses_from_all_recordings(posterior, recordings, tmp_path, strategy):
    out = tmp_path / "out"
    result = run(
        "acquire", posterior, recordings, "--budget", 7, "--strategy", strategy, "-o", out, "--draws", 4, code=3
    )
    assert "bad.wav: cannot be read" in result.stderr
    assert f"7 clips chosen by {strategy} from 9 windows of 6 files" in result.stderr
    rows = chosen(out)
    assert len({(row["file"], row["start"]) for row in rows}) == 7
    # One of each file, before a second one of the long one.
    assert len({row["file"] for row in rows[:6]}) == 6
    assert rows[6]["file"] == "site/long.wav"
    assert {row["strategy"] for row in rows} == {strategy}
    assert all(float(row["probability1"]) >= float(row["probability2"]) for row in rows)
    clips = page_data(out)["clips"]
    assert [(clip["file"], f"{clip['start']:.3f}") for clip in clips] == [(row["file"], row["start"]) for row in rows]
    assert all(clip["sound"].startswith("data:audio/") for clip in clips)
    assert {clip["file"] for clip in clips if not clip["whole"]} == {"site/long.wav"}


def test_what_has_a_label_is_left_out(posterior, recordings, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        "file,labels,start,end\nc0.wav,dog,,\nc1.wav,rain,0.3,0.4\nsite/long.wav,sea,0.5,1.0\nz.wav,sea,,\n"
    )
    out = tmp_path / "out"
    result = run("acquire", posterior, recordings, "--exclude", table, "--budget", 20, "-o", out, code=3)
    left = {(row["file"], row["start"]) for row in chosen(out)}
    assert left == {("c2.wav", "0.000"), ("c3.wav", "0.000"), ("c4.wav", "0.000")} | {
        ("site/long.wav", start) for start in ("0.000", "1.000", "1.500")
    }
    assert "from 9 windows of 6 files, 3 of them labelled already" in result.stderr
    assert "has 6 windows without a label, fewer than the 20 asked for" in result.stderr
    assert "holds no z.wav" in result.stderr
    # Files without a label come before the one that has one.
    assert [row["file"] for row in chosen(out)][3:] == ["site/long.wav"] * 3
    # What was chosen before is left out too.
    again = run("acquire", posterior, recordings, "--exclude", table, "--exclude", out / "chosen.csv", code=1)
    assert "all 9 windows have a label already; add recordings" in again.stderr


def test_mistakes_are_said_in_a_line_before_any_work(posterior, recordings, tmp_path, here):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    result = run("acquire", posterior, recordings, "-o", tmp_path / "full", code=1)
    assert "is there already; name another folder with -o" in result.stderr
    assert "no such folder" in run("acquire", posterior, tmp_path / "none", code=1).stderr
    point = made(tmp_path / "point", "det")
    result = run("acquire", point, recordings, "--strategy", "bald", code=1)
    assert "bald needs draws that disagree" in result.stderr
    assert not (here / "to-label").exists()


def test_pack_takes_what_the_page_would_write(posterior, recordings, tmp_path):
    # As the page writes it: names relative to the folder of the recordings, in which it is saved.
    table = recordings / "labels.csv"
    try:
        table.write_text("file,labels,start,end\nc0.wav,dog,,\nsite/long.wav,rain,0.500,1.000\n")
        out = tmp_path / "new.h5"
        run("pack", "folder", table, "-o", out, "--seconds", 0.5, "--sample-rate", RATE, "--labels", posterior)
        clips = ClipSet(out)
        assert (len(clips), clips.labels, clips.task) == (2, ("dog", "rain", "sea"), Task.ONE_OF_K)
        table.write_text("file,labels\nc0.wav,dog\nc1.wav,rain\n")
        run("pack", "folder", table, "-o", tmp_path / "whole.h5", "--seconds", 0.5, "--sample-rate", RATE)
        assert ClipSet(tmp_path / "whole.h5").labels == ("dog", "rain")
    finally:
        table.unlink()


def test_what_is_kept_does_not_grow_with_the_recordings(posterior, tmp_path, monkeypatch):
    module = sys.modules[acquire.__module__]
    seen = []

    def choose(candidates, *arguments, **options):
        seen.append(candidates)
        return choose_batch(candidates, *arguments, **options)

    monkeypatch.setattr(module, "choose_batch", choose)
    monkeypatch.setattr(module, "_MOST", 16)
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=20 * RATE), RATE)
    loaded = load(posterior)

    def scores(strategy, budget):
        found = acquire(loaded, [path], budget, folder=tmp_path, strategy=strategy, draws=4)
        assert (found.windows, len(found.picks)) == (40, budget)
        return seen[-1].score

    everything = scores(AcquireStrategy.BALD, 40)
    kept = scores(AcquireStrategy.BATCH_BALD, 2)
    # The best of them, which are in the order in which they came.
    assert sorted(kept) == pytest.approx(sorted(everything)[-16:])
    assert seen[-1].samples.shape == (16, 4, 3)
    scores(AcquireStrategy.TYPICAL, 2)
    assert len(seen[-1].embeddings) == 16
    # The more a candidate takes, the fewer there are; four times those wanted at least.
    monkeypatch.setattr(module, "_BYTES", 10)
    assert len(scores(AcquireStrategy.BALD, 2)) == 8


def test_odd_names_and_labels_stay_text(recordings, tmp_path):
    labels = ("</script><b>", "a;b", '=1+1,"x"')
    posterior = made(tmp_path / "odd", "det-flip", labels=labels, task=Task.MULTI_LABEL)
    folder = tmp_path / "odd <names>"
    folder.mkdir()
    name = "a & <i>.wav"
    (folder / name).write_bytes((recordings / "c0.wav").read_bytes())
    run("acquire", posterior, folder, "--budget", 1, "-o", tmp_path / "out")
    text = (tmp_path / "out" / "label.html").read_text()
    data = page_data(tmp_path / "out")
    assert data["clips"][0]["file"] == name
    assert tuple(data["labels"]) == labels
    # A sign that no label holds stands between labels.
    assert data["separator"] == "|"
    assert "--separator '|'" in data["pack"]
    assert "<b>" not in text
    assert "odd &lt;names&gt;" in text
