"""From a folder of clips to tags, without a recipe, on the command line."""

import logging

import pytest

from bayes_panns import learn
from bayes_panns.core.errors import BayesPannsError, CheckpointError
from bayes_panns.interop import foundation
from bayes_panns.jobs.learning import baseline
from bayes_panns.jobs.learning import run as steps
from tests.cli.field import encoded, put, run, tone
from tests.harness.quick_recipe import quick_recipe


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two classes, with names that are not valid text in one of them."""
    folder = tmp_path_factory.mktemp("learn") / "my clips"
    for kind, pitch in (("low", 300), ("h\udce9gh;\n", 1900)):
        for index in range(6):
            put(folder / kind / f"{index} \x1b[31m.wav", encoded(wave=tone(0.5, 8000, pitch, index), rate=8000))
    return folder


@pytest.fixture(scope="module")
def model(clips, net):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "RECIPE", str(quick_recipe(clips.parent)))
        patched.setattr(baseline, "SCALES", (1.0,))
        result = run("learn", clips, "-o", clips.parent / "model", "--from", net, "--yes")
    return clips.parent / "model", result


def test_the_plan_comes_first_and_alone_writes_nothing(clips, net, tmp_path):
    result = run("learn", clips, "-o", tmp_path / "model", "--from", net, "--plan")
    assert "12 clips of 12 recordings" in result.stdout
    assert "resnet14-narrow of 3 labels, 8000 Hz" in result.stdout
    assert "5 fits, each scored on whole recordings that it has not heard" in result.stdout
    assert not (tmp_path / "model").exists()


def test_it_ends_with_scores_beside_baselines_and_what_to_do_next(model):
    folder, result = model
    lines = result.stdout.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("12 clips, unheard"))
    assert [line.split("  ")[0] for line in lines[start + 1 : start + 4]] == [
        "this posterior",
        "logistic regression",
        "always h\\xe9gh;\\n",
    ]
    assert f"bayes-panns predict {folder} new-recordings/" in result.stdout
    assert "\x1b" not in result.output
    assert (folder / "report.html").is_file()


def test_the_other_commands_take_the_folder(model, clips):
    folder, _ = model
    tags = run("predict", folder, clips, "--draws", 20, "--format", "csv")
    assert len(tags.stdout.splitlines()) >= 1 + 12 * 2
    assert "leaks" not in run("inspect", folder).stdout
    scored = run("evaluate", folder, "--data", folder / "clips.h5", "--draws", 20)
    assert "12 of the 12 scored clips are among those that the posterior was fitted to" in scored.stderr
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "each by one of 5 fits that have not heard its fold" in page


def test_the_same_command_again_does_nothing_new(model, clips, net, monkeypatch):
    folder, first = model
    monkeypatch.setattr(steps, "RECIPE", str(clips.parent / "quick.toml"))
    again = run("learn", clips, "-o", folder, "--from", net)
    assert again.stdout.split("unheard")[1] == first.stdout.split("unheard")[1]
    other = run("learn", clips, "-o", folder, "--from", net, "--seed", 1, code=1)
    assert "was begun with other clips or settings" in other.stderr


def test_without_a_network_it_says_what_to_do(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def broken(*_):
        raise CheckpointError("github.com: cannot be reached")

    monkeypatch.setattr(foundation, "fetch", broken)
    result = run("learn", clips, "-o", tmp_path / "model", code=1)
    assert "MIT licence" in result.stdout
    assert f"to {tmp_path / 'cache' / 'bayes-panns'}" in " ".join(result.stdout.split())
    assert "github.com: cannot be reached; without a network bring mn04_as_mAP_432.pt" in result.stderr
    assert "--from" in result.stderr


def test_the_published_network_is_found_where_it_is(net, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "cache" / "bayes-panns" / "mn04"
    kept.parent.mkdir(parents=True)
    kept.symlink_to(net)
    assert foundation.find_foundation().posterior == kept
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mn04").symlink_to(net)
    assert str(foundation.find_foundation().posterior) == "checkpoints/mn04"
    with pytest.raises(BayesPannsError, match="is no posterior"):
        foundation.find_foundation(tmp_path)


def test_a_wrong_place_is_found_out_before_any_work(clips, net, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    caplog.set_level(logging.INFO)
    for out in (tmp_path / "file", tmp_path / "file" / "model"):
        result = run("learn", clips, "-o", out, "--from", net, code=1)
        assert "is a file" in result.stderr
    assert not caplog.records


def test_the_call_refuses_as_the_command_does(tmp_path):
    with pytest.raises(BayesPannsError, match="no such folder or CSV file"):
        learn(tmp_path / "none", tmp_path / "model")
