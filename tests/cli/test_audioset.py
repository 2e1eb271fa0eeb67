"""From AudioSet's own layout, and from PANNs' packs of it, to evaluated posteriors, by the commands."""

import json

import h5py
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from bayes_panns.cli import main
from bayes_panns.clips import Store
from bayes_panns.clips.catalogs.dcase2013 import SCENES
from bayes_panns.posterior import load

RATE = 8000
PACK = ("--seconds", 1, "--sample-rate", RATE)
LABELS = ("Speech", "Male speech, man speaking", "Bark")
SMALL = (
    *("--set", "net=resnet14-narrow", "--set", "fit.epochs=1", "--set", "fit.batch_size=4"),
    *("--set", "data.validation=0.2", "--seed", "1", "--device", "cpu"),
)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def clip(number):
    """A name that YouTube could give, and labels that make the first frequent and the last rare."""
    return f"-_{number:09}", [0] + [1] * (number % 3 == 0) + [2] * (number % 6 == 0)


def wave(labels):
    time = np.arange(RATE) / RATE
    return 0.2 * sum(np.sin(2 * np.pi * (300 + 600 * label) * time) for label in labels)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audioset")
    (folder / "metadata").mkdir()
    index = ["index,mid,display_name", *(f'{number},/m/{number},"{name}"' for number, name in enumerate(LABELS))]
    (folder / "metadata" / "class_labels_indices.csv").write_text("\n".join(index) + "\n")
    for split, numbers in (("balanced_train", range(24)), ("eval", range(24, 32))):
        lines = ["# Segments csv created", "# num_ytids=", "# YTID, start_seconds, end_seconds, positive_labels"]
        (folder / "audios" / f"{split}_segments").mkdir(parents=True)
        for number in numbers:
            name, labels = clip(number)
            lines.append(f'{name}, 30.000, 40.000, "{",".join(f"/m/{label}" for label in labels)}"')
            if number % 8 != 1:
                soundfile.write(folder / "audios" / f"{split}_segments" / f"Y{name}.wav", wave(labels), RATE)
        (folder / "metadata" / f"{split}_segments.csv").write_text("\n".join(lines) + "\n")
    for split in ("balanced", "eval"):
        result = run("pack", "audioset", folder, "-o", folder / f"{split}.h5", "--split", split, *PACK, code=3)
        assert "no such file" in result.stderr
        assert (
            f"{'21' if split == 'balanced' else '7'} clips packed, {'3' if split == 'balanced' else '1'} skipped"
            in (result.stderr)
        )
    return folder


def panns_pack(path, numbers, missing):
    """As PANNs' `pack_waveforms_to_hdf5` writes it: no label names, and a row left empty for a missing file."""
    with h5py.File(path, "w") as file:
        file.create_dataset("audio_name", shape=(len(numbers),), dtype="S20")
        file.create_dataset("waveform", shape=(len(numbers), RATE), dtype=np.int16)
        file.create_dataset("target", shape=(len(numbers), len(LABELS)), dtype=bool)
        file.attrs.create("sample_rate", data=RATE, dtype=np.int32)
        for row, number in enumerate(numbers):
            if number in missing:
                continue
            name, labels = clip(number)
            file["audio_name"][row] = f"Y{name}.wav".encode()
            file["waveform"][row] = (32767 * wave(labels)).astype(np.int16)
            file["target"][row] = np.isin(np.arange(len(LABELS)), labels)


def fitted(home, guide):
    folder = home / "runs" / guide
    if not folder.exists():
        run("pretrain", "audioset", "--data", home / "balanced.h5", "--guide", guide, "-o", folder, *SMALL)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["flip", "drop", "det"])
def test_from_audiosets_layout_to_an_evaluated_posterior(home, guide):
    folder = fitted(home, guide)
    assert load(folder).labels == LABELS
    result = run("evaluate", folder, "--data", home / "eval.h5", "--draws", 2, "--json", "-")
    metrics = json.loads(result.stdout)
    assert metrics["clips"] == 7
    assert 0 < metrics["cls/map"] <= 1
    assert "there are 3" in run("evaluate", folder, "--data", home / "eval.h5", "--folds", 1, code=1).stderr


@pytest.mark.slow
def test_from_there_to_the_scenes_of_dcase_2013(home, tmp_path):
    for part, numbers in (("scenes_stereo", (2, 3, 5, 8, 9)), ("scenes_stereo_testset", (1,))):
        (tmp_path / part).mkdir()
        for place, scene in enumerate(SCENES):
            for number in numbers:
                both = np.stack([wave([place]), wave([place, number])], axis=1)
                soundfile.write(tmp_path / part / f"{scene}{number:02}.wav", both, RATE)
    assert "60 clips packed, 0 skipped" in run("pack", "dcase2013", tmp_path, "-o", tmp_path / "s.h5", *PACK).stderr
    out = ("-o", tmp_path / "run")
    run("finetune", "dcase2013-finetune", "--from", fitted(home, "flip"), "--data", tmp_path / "s.h5", *out, *SMALL)
    assert load(tmp_path / "run").provenance["folds"] == [1, 2, 3, 4, 5]
    scored = ("--data", tmp_path / "s.h5", "--folds", 6, "--draws", 2, "--json", "-")
    assert json.loads(run("evaluate", tmp_path / "run", *scored).stdout)["clips"] == 10


@pytest.mark.slow
def test_several_packs_of_panns_are_one_set_and_get_their_labels_names(home, tmp_path):
    first, second, held = (tmp_path / f"part0{part}.h5" for part in range(3))
    panns_pack(first, range(12), missing=(1,))
    panns_pack(second, range(12, 24), missing=())
    panns_pack(held, range(24, 32), missing=())
    assert (len(Store(first)), Store(first).named) == (11, False)
    data = ("--data", first, "--data", second)
    index = home / "metadata" / "class_labels_indices.csv"
    run("pretrain", "audioset", *data, "--labels", index, "-o", tmp_path / "run", *SMALL)
    posterior = load(tmp_path / "run")
    assert (posterior.labels, posterior.provenance["data"]) == (LABELS, ["part00.h5", "part01.h5"])
    scores = [
        json.loads(run("evaluate", tmp_path / "run", "--data", store, "--draws", 0, "--json", "-").stdout)
        for store in (held, home / "eval.h5")
    ]
    assert [score["clips"] for score in scores] == [8, 7]
    run("calibrate", tmp_path / "run", "--draws", 2, "--coverage", 0.5)


def test_labels_that_do_not_fit_are_reported(home, tmp_path):
    panns_pack(tmp_path / "a.h5", range(4), missing=())
    (tmp_path / "two.csv").write_text("index,display_name\n0,Speech\n1,Bark\n")
    data = ("--data", tmp_path / "a.h5", "-o", tmp_path / "run", *SMALL)
    result = run("pretrain", "audioset", *data, "--labels", tmp_path / "two.csv", code=1)
    assert "has 3 labels, but 2 label names" in result.stderr
    assert "no such file" in run("pretrain", "audioset", *data, "--labels", tmp_path / "none.csv", code=1).stderr
    named = ("pretrain", "audioset", "--data", home / "balanced.h5", "-o", tmp_path / "run", *SMALL)
    (tmp_path / "other.csv").write_text("index,display_name\n0,Speech\n1,Bark\n2,Rain\n")
    assert "label names of its own" in run(*named, "--labels", tmp_path / "other.csv", code=1).stderr


def test_split_is_audiosets_alone(tmp_path):
    result = run("pack", "folder", tmp_path, "-o", tmp_path / "s.h5", "--split", "eval", code=2)
    assert "--split is not for the catalog folder" in result.output
