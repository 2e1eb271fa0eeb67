"""``from bayes_panns import load, fit, evaluate, predict``: lazy, and the same calls as those of the folders."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile

import bayes_panns
from bayes_panns.clips import Task, write

CALLS = {"evaluate", "fit", "learn", "load", "predict"}


def python(code):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_is_instant_and_loads_no_library():
    shown = python("""
        import sys, time
        start = time.process_time()
        import bayes_panns
        seconds = time.process_time() - start
        print(seconds < 0.1, sorted({"torch", "pyro", "numpy", "click"} & set(sys.modules)))
    """)
    assert shown == "True []\n"


def test_the_calls_are_those_of_the_folders():
    from bayes_panns import evaluate, fit, load, predict
    from bayes_panns.jobs import evaluate_posterior
    from bayes_panns.jobs import fit as fit_job
    from bayes_panns.notebook import load as load_tagger
    from bayes_panns.notebook import predict as predict_sounds

    assert (evaluate, fit, load, predict) == (evaluate_posterior, fit_job, load_tagger, predict_sounds)


def test_a_name_is_listed_before_it_is_used_and_an_unknown_one_is_an_error():
    shown = python("import bayes_panns, sys; print(*dir(bayes_panns)); print('torch' in sys.modules)")
    listed, torch_loaded = shown.splitlines()
    assert set(listed.split()) >= CALLS
    assert torch_loaded == "False"
    assert set(bayes_panns.__all__) == CALLS | {"__version__"}
    with pytest.raises(AttributeError, match="module 'bayes_panns' has no attribute 'fits'"):
        bayes_panns.fits  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'fits'"):
        from bayes_panns import fits  # noqa: F401


def test_a_folder_is_still_found_by_attribute():
    assert python("from bayes_panns import metrics; print(metrics.__name__)") == "bayes_panns.metrics\n"


def test_the_example_of_the_docstring_runs(tmp_path, monkeypatch, capsys):
    block = bayes_panns.__doc__.split("::\n\n")[1].split("\n\nIn a notebook")[0]
    code = textwrap.dedent(block).replace("fit.epochs=20", "fit.epochs=1")
    assert "fit.epochs=1" in code
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stores").mkdir()
    generator = np.random.default_rng(0)
    for name in ("mine", "test"):
        waveform = 0.1 * generator.normal(size=(12, 4000))
        target = np.eye(2, dtype=bool)[np.arange(12) % 2]
        write(tmp_path / "stores" / f"{name}.h5", waveform, target, ("cat", "dog"), Task.ONE_OF_K, 8000)
    soundfile.write("dog.wav", 0.1 * generator.normal(size=4000), 8000)
    exec(code, {})
    shown = capsys.readouterr().out
    assert shown.startswith("file     seconds  most probable")
    assert "('cat', 'dog') [[" in shown
    assert "'cls/accuracy'" in shown
