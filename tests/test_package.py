"""Installed from a wheel, outside the checkout, everything is there; inside it, the tests are its own."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def call(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.long
def test_a_wheel_holds_the_recipes_and_the_command(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "bayes_panns", source / "bayes_panns", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("*.*"), ROOT / "LICENSE", *ROOT.glob("guides/*.toml"), *ROOT.glob("runs/*.toml")]:
        if path.is_file():
            (source / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
            shutil.copy(path, source / path.relative_to(ROOT))
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source))
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    call(*pip, "--target", str(site), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    code = (
        "import bayes_panns, bayes_panns.recipes as r; print(bayes_panns.__file__, r.names('runs'), r.names('guides'));"
        "r.read_strategy(r.read_run('scratch').guide)"
    )
    shown = call(sys.executable, "-c", code, cwd=tmp_path, env=environment)
    assert str(site) in shown
    for name in [path.stem for kind in ("runs", "guides") for path in (ROOT / kind).glob("*.toml")]:
        assert f"'{name}'" in shown
    assert (site / "bayes_panns" / "py.typed").is_file()
    assert "Usage: bayes-panns" in call(str(site / "bin" / "bayes-panns"), "--help", cwd=tmp_path, env=environment)


def test_an_installed_package_called_tests_does_not_hide_these(tmp_path):
    """For ``python -m tests.faults``, which puts the folder that it runs in first."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    found = PathFinder.find_spec("tests", [str(ROOT), str(tmp_path)])
    assert Path(found.origin) == ROOT / "tests" / "__init__.py"
