"""Whether the packages are there that bayes_panns needs, in versions that go together; known without a need of them."""

import platform
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from bayes_panns import __version__
from bayes_panns.core.choices import Health
from bayes_panns.core.errors import reason
from bayes_panns.core.findings import Finding

AREA = "installation"

_NAME = "bayes-panns"

_OPTIONAL = {
    "arviz": ("draws for ArviZ", "pip install 'bayes-panns[arviz]'"),
    "pandas": ("tables for pandas", "pip install 'bayes-panns[frames]'"),
    "polars": ("tables for Polars", "pip install 'bayes-panns[frames]'"),
    "xarray": ("arrays for xarray", "pip install 'bayes-panns[frames]'"),
    "pyarrow": ("Parquet files", "pip install 'bayes-panns[parquet]'"),
    "usearch": ("databases of perch-hoplite", "pip install 'bayes-panns[hoplite]'"),
    "ipykernel": ("the notebooks of examples/", "pip install 'bayes-panns[notebooks]'"),
    "sed_eval": ("event scores by sed_eval", "pip install sed_eval"),
    "psds_eval": ("PSDS by psds_eval", "pip install psds_eval"),
}
"""Packages that some things need: what for, and how to install them."""

_IMPORTED = {"pyro-ppl": "pyro", "scikit-learn": "sklearn", "pillow": "PIL", "tomli-w": "tomli_w"}
"""Names under which packages are imported, where they differ."""


def examine_installation() -> Iterator[Finding]:
    """Look at Python, at each package that is needed, at the pair of torch and torchaudio, and at the optional ones.

    Packages are imported, since one may be there and broken.
    """
    yield Finding(AREA, _NAME, Health.OK, f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    try:
        needed = [Requirement(line) for line in requires(_NAME) or ()]
    except PackageNotFoundError:
        todo = "run pip install in its folder, so that its packages come along"
        yield Finding(AREA, "packages", Health.NOTE, f"{_NAME} itself is not installed, only found", todo)
        needed = []
    found = [_package(each) for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = [each for each in found if each.health != Health.OK]
    if found:
        yield from wrong or [Finding(AREA, "packages", Health.OK, f"all {len(found)} that are needed are there")]
    if not wrong:
        yield _pair()
    for name, (purpose, todo) in _OPTIONAL.items():
        try:
            yield Finding(AREA, name, Health.OK, f"{version(name)}, for {purpose}")
        except PackageNotFoundError:
            yield Finding(AREA, name, Health.NOTE, f"not installed; only needed for {purpose}", todo)


def _package(needed: Requirement) -> Finding:
    """How a package is that is needed."""
    todo = f"pip install '{needed.name}{needed.specifier}'"
    try:
        there = version(needed.name)
    except PackageNotFoundError:
        return Finding(AREA, needed.name, Health.PROBLEM, "is not installed", todo)
    if not needed.specifier.contains(there, prereleases=True):
        return Finding(AREA, needed.name, Health.PROBLEM, f"{there} is there, and {needed.specifier} is needed", todo)
    try:
        import_module(_IMPORTED.get(needed.name, needed.name))
    except Exception as error:  # A package that is broken may raise anything.
        return Finding(AREA, needed.name, Health.PROBLEM, f"{there} cannot be imported ({reason(error)})", todo)
    return Finding(AREA, needed.name, Health.OK, there)


def _pair() -> Finding:
    """Whether torch and torchaudio are of one version and one build."""
    torch, torchaudio = version("torch"), version("torchaudio")
    text = f"torch {torch}, torchaudio {torchaudio}"
    release = [each.split("+")[0].split(".")[:2] for each in (torch, torchaudio)]
    build = [each.partition("+")[2] for each in (torch, torchaudio)]
    if release[0] != release[1] or (all(build) and build[0] != build[1]):
        todo = "install both from one index: pip install 'torch==2.11.*' 'torchaudio==2.11.*'"
        return Finding(AREA, "torch pair", Health.PROBLEM, f"{text} do not go together", todo)
    return Finding(AREA, "torch pair", Health.OK, text)
