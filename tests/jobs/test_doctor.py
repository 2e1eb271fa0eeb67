"""What ``doctor`` finds: in a whole installation, in broken ones, and in posteriors that are well and unwell."""

import json
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bayes_panns.audio import ffmpeg
from bayes_panns.bayes import Settings, Strategy
from bayes_panns.cli import main
from bayes_panns.clips import Task
from bayes_panns.core import installation
from bayes_panns.core.choices import Health
from bayes_panns.core.findings import Finding
from bayes_panns.jobs import doctor, examine_posterior, health
from bayes_panns.posterior import Calibration, FittedClips, Posterior, save
from bayes_panns.recipes import read_strategy
from bayes_panns.report.text import findings_text


def build(strategy="det-flip", labels=("cat", "dog"), **options):
    strategy = read_strategy(strategy) if isinstance(strategy, str) else strategy
    settings = {"net": "resnet14-coarse", "labels": labels, "task": Task.ONE_OF_K, "sample_rate": 16000}
    made = Posterior.build(**{**settings, "clip_seconds": 0.5, "strategy": strategy, **options})
    made.provenance = {"epochs": 2.0, "clips": 8, "data": ["mine.h5"], "complete": True}
    made.fitted_clips = FittedClips.of([b"a" * 32])
    return made


@pytest.fixture(scope="module")
def well():
    """A posterior with all that there is to have."""
    torch.manual_seed(0)
    made = build()
    made.metrics = {"nll": 1.0, "val/ece": 0.02}
    made.calibration = Calibration(temperature=1.5, threshold=0.1, coverage=0.9, draws=20, clips=(4, 4), data=("v.h5",))
    return made


def findings(posterior, folder):
    save(posterior, folder)
    return {each.name: each for each in examine_posterior(folder, device="cpu")}


def test_a_posterior_that_is_well(well, tmp_path):
    found = findings(well, tmp_path / "p")
    assert {each.health for each in found.values()} == {Health.OK}
    assert "2 epochs on 8 clips of mine.h5" in found["fit"].text
    assert "temperature 1.5 and label sets of 90%" in found["calibration"].text
    assert found["held-out clips"].text == "ece 0.02"
    assert "draws differ" in found["predictions"].text
    assert "times real time on cpu: resnet14-coarse, 200 draws" in found["speed"].text


def test_what_a_posterior_lacks_is_a_note_with_what_to_do(tmp_path):
    poor = build("det", labels=("cat", "dog", "cat"), sample_rate=8000)
    poor.provenance |= {"complete": False, "converged": False, "tempered": True, "kl_weight": 0.01}
    poor.provenance |= {"weights": 100, "effective_parameters": 1.0, "at_prior": 99}
    poor.metrics, poor.fitted_clips = {"val/ece": 0.3}, FittedClips()
    found = findings(poor, tmp_path / "p")
    notes = {name for name, each in found.items() if each.health == Health.NOTE}
    expected = {"labels", "network", "fit", "widths", "held-out clips", "calibration", "fitted clips", "predictions"}
    assert notes == expected
    assert all(found[name].todo for name in expected)
    assert found["labels"].text.endswith("twice: cat")
    assert "interrupted, not converged, tempered: the KL weighs 0.01" in found["fit"].text
    assert "the data determine 1 of 100 weights" in found["widths"].text
    assert "points, so there is no epistemic uncertainty" in found["predictions"].text


def test_an_import_without_a_fit_is_told(tmp_path):
    fresh = build("det")
    fresh.provenance = {"imported": "efficientat", "checkpoint": "mn04.pt"}
    assert findings(fresh, tmp_path / "p")["fit"].text == "none: imported from mn04.pt"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_a_problem(tmp_path, value):
    broken = build()
    with torch.no_grad():
        next(iter(broken.points().values())).fill_(value)
    assert findings(broken, tmp_path / "p")["predictions"].health == Health.PROBLEM


def test_draws_that_all_agree_are_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(health, "_DRAWS", 1)
    found = findings(build(), tmp_path / "p")["predictions"]
    assert found.health == Health.PROBLEM
    assert "agree to the last digit" in found.text


@pytest.mark.parametrize("damage", ["nothing", "flipped", "missing", "elsewhere"])
def test_a_damaged_posterior_is_one_problem(well, tmp_path, damage):
    save(well, tmp_path / "p")
    path = tmp_path / "p" / "guide.safetensors"
    if damage == "flipped":
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    elif damage == "missing":
        path.unlink()
    place = tmp_path / ("elsewhere" if damage == "elsewhere" else "p")
    found = list(examine_posterior(place, device="cpu"))
    wrong = [each for each in found if each.health == Health.PROBLEM]
    assert len(wrong) == (damage != "nothing")
    assert damage == "nothing" or (len(found) == 1 and found[0].todo)


def test_a_posterior_that_cannot_be_opened_says_why(tmp_path):
    made = build(Strategy(default=Settings()))
    made.guide_function = "own:guide"
    (problem,) = [each for each in findings(made, tmp_path / "p").values() if each.health == Health.PROBLEM]
    assert problem.name == "loading"
    assert "name it with --guide if you trust it" in problem.text


def test_the_decoders_give_back_what_was_written():
    found = {each.name: each for each in doctor._decoders()}
    assert {"libsndfile", "WAV", "FLAC", "OGG (Vorbis)", "ffmpeg"} <= set(found)
    assert not [each for each in found.values() if each.health == Health.PROBLEM]


def test_a_decoder_that_gives_something_else_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "_PITCH", 700.0)
    tone = np.sin(np.arange(20000) / 3).astype(np.float32)
    import soundfile

    with doctor.tempfile.TemporaryDirectory() as folder:
        path = doctor.Path(folder) / "a.wav"
        soundfile.write(path, tone, 32000)
        found = doctor._read_again("WAV", path, 700.0, "reinstall")
    assert found.health == Health.PROBLEM
    assert "a tone comes back with" in found.text


def test_without_ffmpeg_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    (found,) = doctor._ffmpeg(tmp_path, np.zeros(10))
    assert (found.health, found.todo) == (Health.NOTE, ffmpeg.MISSING)
    monkeypatch.setattr(ffmpeg, "program", lambda: "/nowhere/ffmpeg")
    (found,) = doctor._ffmpeg(tmp_path, np.zeros(10))
    assert found.health == Health.PROBLEM


def test_packages_that_are_missing_too_old_or_of_two_builds(monkeypatch):
    needed = ["numpy>=1", "torch>=99", "not-there>=2", "only-windows; sys_platform == 'win32'", "extra; extra == 'x'"]
    versions = {"numpy": "2.0", "torch": "2.11.0", "torchaudio": "2.11.0"}

    def version(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(installation, "requires", lambda name: needed)
    monkeypatch.setattr(installation, "version", version)
    found = {each.name: each for each in installation.examine_installation()}
    wrong = {name: each.text for name, each in found.items() if each.health == Health.PROBLEM}
    assert wrong == {"torch": "2.11.0 is there, and >=99 is needed", "not-there": "is not installed"}
    assert found["torch"].todo == "pip install 'torch>=99'"
    assert found["arviz"].todo == "pip install 'bayes-panns[arviz]'"
    needed[1:3] = []
    versions["torchaudio"] = "2.10.1"
    found = {each.name: each for each in installation.examine_installation()}
    assert found["torch pair"].text == "torch 2.11.0, torchaudio 2.10.1 do not go together"
    versions |= {"torch": "2.11.0+cpu", "torchaudio": "2.11.0+cu128"}
    assert installation._pair().health == Health.PROBLEM


def test_a_package_that_is_there_and_broken_is_a_problem(monkeypatch):
    def broken(name):
        raise OSError("libtorch.so: cannot open\nshared object file")

    monkeypatch.setattr(installation, "import_module", broken)
    monkeypatch.setattr(installation, "requires", lambda name: ["numpy"])
    (found,) = [each for each in installation.examine_installation() if each.name == "numpy"]
    assert "cannot be imported (libtorch.so: cannot open shared object file)" in found.text


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)])


def test_the_command_ends_with_1_if_there_is_a_problem(well, tmp_path, monkeypatch):
    monkeypatch.setattr("bayes_panns.jobs.examine_machine", lambda: [])
    save(well, tmp_path / "p")
    result = run(tmp_path / "p", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("installation\n  ok")
    assert "\nno problem, " in result.stdout
    (tmp_path / "p" / "guide.safetensors").unlink()
    result = run(tmp_path / "p", "--json", "-")
    assert result.exit_code == 1
    table = json.loads(result.stdout)
    assert table["problems"] == 1
    assert table["findings"][-1]["health"] == "problem"


def test_a_broken_installation_is_told_before_anything_heavy_is_imported(monkeypatch, tmp_path):
    wrong = Finding("installation", "torch", Health.PROBLEM, "is not installed", "pip install torch")
    monkeypatch.setattr("bayes_panns.core.installation.examine_installation", lambda: [wrong])
    monkeypatch.setattr("bayes_panns.jobs.examine_machine", pytest.fail)
    result = run("--json", tmp_path / "found.json")
    assert result.exit_code == 1
    assert result.stdout == findings_text([wrong])
    assert json.loads((tmp_path / "found.json").read_text())["problems"] == 1


@pytest.mark.slow
def test_the_machine_of_the_tests_is_well():
    found = list(doctor.examine_machine())
    assert [each for each in found if each.health == Health.PROBLEM] == []
    assert {each.area for each in found} == {"device", "decoders", "disk"}


@pytest.mark.parametrize(("ending", "said"), [("exec sleep 900", "it has not ended in 1 s"), ("exit 7", "exit code 7")])
def test_an_ffmpeg_that_hangs_or_fails_is_noted(ending, said, monkeypatch, tmp_path):
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\n[ "$1" = -version ] && echo ffmpeg version 1 || {ending}\n')
    program.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "program", lambda: str(program))
    monkeypatch.setattr(doctor, "_PATIENCE", 1)
    found = list(doctor._ffmpeg(tmp_path, np.zeros(10)))
    assert [each.health for each in found] == [Health.OK, Health.NOTE]
    assert said in found[1].text
