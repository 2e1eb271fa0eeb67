"""`pack` with the labels that people have, and what a fit says of them before it starts."""

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.clips import Store, write

RATE = 8000
PACK = ("--seconds", 0.5, "--sample-rate", RATE)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def sound(path, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=int(RATE * seconds)), RATE)
    return path


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_timed_labels(tmp_path):
    sound(tmp_path / "in" / "day.wav", 10)
    text(tmp_path / "in" / "day.txt", "1.0\t1.3\tdog", "4.0\t4.4\tcat")
    out = tmp_path / "s.h5"
    result = run("pack", "timed", tmp_path / "in", "-o", out, *PACK, "--exhaustive")
    assert "labelled stretches: 2 of 1 recordings" in result.stderr
    store = Store(out)
    assert (store.labels, store.task) == (("cat", "dog"), "multi-label")
    assert list(store.names[:3]) == ["day.wav 0-0.5", "day.wav 0.5-1", "day.wav 0.9-1.4"]
    assert set(store.sources) == {"day.wav"}
    assert store.provenance["options"] == {
        "labels": ["Audacity label track"],
        "context": True,
        "exhaustive": True,
    }
    run("pack", "folder", tmp_path / "in" / "day.txt", "-o", out, *PACK, "--no-context")
    assert list(Store(out).seconds) == pytest.approx([0.3, 0.4])


def test_comma_joined_labels(tmp_path):
    for name in "123":
        sound(tmp_path / f"{name}.wav")
    table = text(tmp_path / "t.csv", "file,labels", '1.wav,"Guitar,Music"', "2.wav,Music", "3.wav,")
    out = tmp_path / "s.h5"
    told = run("pack", "folder", table, "-o", out, *PACK).stderr
    assert (
        "such as 'Guitar,Music', look like several joined by ','; if they are, pack again with --separator ','" in told
    )
    assert "look like" not in run("pack", "folder", table, "-o", out, *PACK, "--separator", ",").stderr
    assert Store(out).labels == ("Guitar", "Music")
    assert Store(out).target().tolist() == [[True, True], [False, True], [False, False]]
    text(table, "file,labels", '1.wav,"Male speech, man speaking"', "2.wav,Music", "3.wav,")
    assert "look like" not in run("pack", "folder", table, "-o", out, *PACK).stderr


def test_a_fixed_set_of_labels(tmp_path):
    for name in ("glass", "saw"):
        sound(tmp_path / "test" / name / "a.wav")
    names = text(tmp_path / "labels.txt", "saw", "horn", "glass")
    table = text(tmp_path / "l.csv", "index,display_name", "0,saw", "1,horn", "2,glass")
    write(tmp_path / "o.h5", np.zeros((3, 4000)), np.eye(3, dtype=bool), ["saw", "horn", "glass"], "one-of-k", RATE)
    out = tmp_path / "s.h5"
    for source in (names, table, tmp_path / "o.h5"):
        told = run("pack", "folder", tmp_path / "test", "-o", out, *PACK, "--labels", source).stderr
        assert "warning" not in told
        assert (Store(out).labels, Store(out).task) == (("saw", "horn", "glass"), "one-of-k")
        assert Store(out).target().tolist() == [[False, False, True], [True, False, False]]
    text(names, "saw", "horn")
    told = run("pack", "folder", tmp_path / "test", "-o", out, *PACK, "--labels", names, code=1).stderr
    assert "glass/a.wav has the label 'glass', which is not one of the 2 labels asked for" in told
    text(names, "saw", "", "saw")
    told = run("pack", "folder", tmp_path / "test", "-o", out, *PACK, "--labels", names, code=1).stderr
    assert "line 3 lists 'saw' again, after line 1" in told
    text(names, "")
    assert (
        "lists no labels"
        in run("pack", "folder", tmp_path / "test", "-o", out, *PACK, "--labels", names, code=1).stderr
    )
    told = run("pack", "folder", tmp_path / "test" / "saw", "-o", out, *PACK, "--labels", table, code=1).stderr
    assert "its clips have no labels" in told


def test_clips_without_a_label_are_no_clips_of_one_label_each(tmp_path):
    for name in "123":
        sound(tmp_path / f"{name}.wav")
    names = tmp_path / "o.h5"
    write(names, np.zeros((2, 4000)), np.eye(2, dtype=bool), ["a", "b"], "one-of-k", RATE)
    table = text(tmp_path / "t.csv", "file,labels", "1.wav,a", "2.wav,", "3.wav,")
    out = tmp_path / "s.h5"
    told = run("pack", "folder", table, "-o", out, *PACK, "--labels", names).stderr
    assert "2 clips have none of the labels and are left out" in told
    assert (Store(out).task, Store(out).names) == ("one-of-k", ["1.wav"])
    text(table, "file,labels", "1.wav,a;b", "2.wav,")
    assert "1.wav has 2 labels" in run("pack", "folder", table, "-o", out, *PACK, "--labels", names, code=1).stderr


def test_labels_of_a_posterior_of_several_labels(tmp_path):
    for name in ("a", "b"):
        sound(tmp_path / "test" / name / "a.wav")
    write(tmp_path / "o.h5", np.zeros((2, 4000)), np.ones((2, 2), dtype=bool), ["b", "a"], "multi-label", RATE)
    run("pretrain", "scratch", "--data", tmp_path / "o.h5", "-o", tmp_path / "run", "--guide", "det",
        "--set", "fit.epochs=1", "--set", "data.validation=0")  # fmt: skip
    run("pack", "folder", tmp_path / "test", "-o", tmp_path / "s.h5", *PACK, "--labels", tmp_path / "run")
    assert (Store(tmp_path / "s.h5").labels, Store(tmp_path / "s.h5").task) == (("b", "a"), "multi-label")


def test_folds_of_whole_recordings(tmp_path):
    rows = []
    for index in range(24):
        sound(tmp_path / f"{index}.wav")
        rows.append(f"{index}.wav,{'ab'[index // 2 % 2]},rec{index // 2}")
    table = text(tmp_path / "t.csv", "file,labels,source", *rows)
    folds = []
    for seed in (0, 0, 1):
        told = run("pack", "folder", table, "-o", tmp_path / "s.h5", *PACK, "--folds", 3, "--seed", seed).stderr
        assert f"24 clips of 12 recordings in 3 folds, by the seed {seed}" in told
        store = Store(tmp_path / "s.h5")
        folds.append(store.folds.tolist())
        for fold in (1, 2, 3):
            assert store.target()[store.folds == fold].sum(axis=0).tolist() == [4, 4]
        assert store.provenance["options"] == {"csv": "t.csv", "folds": 3, "seed": seed}
    assert folds[0] == folds[1] != folds[2]
    assert folds[0][0::2] == folds[0][1::2], "the two clips of a recording stay together"
    told = run("pack", "folder", table, "-o", tmp_path / "s.h5", *PACK, "--folds", 9, code=1).stderr
    assert "its 12 recordings make no more than 6 folds" in told
    text(table, "file,labels,fold", *(f"{index}.wav,a,1" for index in range(4)))
    told = run("pack", "folder", table, "-o", tmp_path / "s.h5", *PACK, "--folds", 2, code=1).stderr
    assert "its clips have folds already; pack it without --folds" in told


def test_files_outside(tmp_path):
    sound(tmp_path / "out.wav")
    sound(tmp_path / "in" / "a.wav")
    table = text(tmp_path / "in" / "t.csv", "file,labels", "a.wav,a", "../out.wav,b")
    told = run("pack", "folder", table, "-o", tmp_path / "s.h5", *PACK, code=1).stderr
    assert "line 3 names '../out.wav', which is not below the folder of the table" in told
    assert not (tmp_path / "s.h5").exists()
    run("pack", "folder", table, "-o", tmp_path / "s.h5", *PACK, "--allow-outside")


def test_a_table_in_a_folder_that_is_not_read_is_named(tmp_path):
    sound(tmp_path / "in" / "a.wav")
    text(tmp_path / "in" / "tags.csv", "file,labels", "a.wav,dog")
    told = run("pack", "folder", tmp_path / "in", "-o", tmp_path / "s.h5", *PACK).stderr
    assert "its clips are unlabelled; if" in told
    assert "tags.csv lists their labels, name it instead" in told


def test_one_channel(tmp_path):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", np.tile([0.1, 0.3], (4000, 1)), RATE)
    for channel, level in (("mix", 0.2), ("right", 0.3), ("1", 0.1)):
        run("pack", "folder", tmp_path / "in", "-o", tmp_path / "s.h5", *PACK, "--channel", channel)
        assert Store(tmp_path / "s.h5").waveform([0]).mean() == pytest.approx(level, abs=1e-3)
    assert "--channel" in run("pack", "folder", tmp_path, "-o", tmp_path / "s.h5", "--channel", "up", code=2).stderr


def test_skipped_files_are_exit_code_3(tmp_path):
    sound(tmp_path / "a.wav")
    table = text(tmp_path / "t.csv", "file,labels", "a.wav,a", "gone.wav,b")
    told = run("pack", "folder", table, "-o", tmp_path / "s.h5", *PACK, code=3).stderr
    assert "1 clips packed, 1 skipped" in told
    assert "1 of 2 labels ('b') have no clip" in told


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("esc50", "--separator", ","), "--separator is not for the catalog esc50"),
        (("audioset", "--no-context"), "--no-context is not for the catalog audioset"),
        (("folder", "--seed", "1"), "--seed is for --folds"),
        (("folder", "--folds", "1"), "1 is not in the range"),
        (("folder", "--separator", ""), "--separator is empty"),
        (("folder", "--labels", "x", "--min-count", "2"), "give one of them"),
        (("embeddings", "--channel", "left"), "--channel is not for the catalog embeddings"),
    ],
)
def test_wrong_usage(tmp_path, options, match):
    name, *rest = options
    assert match in run("pack", name, tmp_path, "-o", tmp_path / "s.h5", *rest, code=2).stderr


FIT = ("--guide", "det", "--set", "fit.epochs=1", "--set", "data.validation=0")


def fitted(tmp_path, target, labels, task):
    target = np.asarray(target, dtype=bool)
    waves = 0.1 * np.random.default_rng(0).normal(size=(len(target), 4000))
    write(tmp_path / "s.h5", waves, target, labels, task, RATE)
    return run("pretrain", "scratch", "--data", tmp_path / "s.h5", "-o", tmp_path / "run", *FIT).stderr


def test_a_fit_says_which_labels_it_cannot_learn(tmp_path):
    target = np.zeros((103, 3), dtype=bool)
    target[0, 0], target[1:, 1] = True, True
    told = fitted(tmp_path, target, ["hen", "cow", "owl"], "one-of-k")
    assert "in the 103 clips that are fitted to: 1 of 3 labels ('owl') has no clip" in told
    assert "'cow' has 102 clips and 'hen' 1, 102 times fewer" in told


def test_a_fit_says_that_all_clips_have_a_label(tmp_path):
    told = fitted(tmp_path, [[True, False], [True, True]], ["hen", "cow"], "multi-label")
    assert "all 2 clips have 'hen': what a sound without it is like cannot be learned" in told


def test_a_fit_to_labels_that_are_well_says_nothing(tmp_path):
    told = fitted(tmp_path, [[True, False], [False, True]], ["hen", "cow"], "one-of-k")
    assert "that are fitted to:" not in told


def test_a_single_label_is_refused_by_a_fit_and_said_by_pack(tmp_path):
    for index in range(3):
        sound(tmp_path / f"{index}.wav")
    table = text(tmp_path / "t.csv", "file,labels", *(f"{index}.wav,dog" for index in range(3)))
    assert "every clip has the label 'dog'" in run("pack", "folder", table, "-o", tmp_path / "s.h5", *PACK).stderr
    told = run("pretrain", "scratch", "--data", tmp_path / "s.h5", "-o", tmp_path / "run", *FIT, code=1).stderr
    assert "has the single label 'dog', so there is nothing to learn" in told
