"""A folder imports only from folders above it, in the order that CONTRIBUTING.md gives; in every form of import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bayes_panns"

ORDER = [
    "core",
    "metrics",
    "soundscapes",
    "ranks",
    "devices",
    "audio",
    "clips",
    "nets",
    "bayes",
    "svi",
    "posterior",
    "predictions",
    "evaluations",
    "recipes",
    "jobs",
    "report",
    "interop",
    "notebook",
    "cli",
]
FREE_OF = {
    "core": {"torch", "torchaudio", "pyro", "numpy"},
    "metrics": {"torch", "torchaudio", "pyro"},
    "nets": {"pyro"},
}
"""What a folder must not import. That none of it comes along with another import is tested too."""


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(source, module, is_package=False):
    """The absolute names that a module imports, in any form, anywhere in it, and in strings that name a module."""
    package = module if is_package else module.rpartition(".")[0]
    tree, found = ast.parse(source), set()
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "importlib"]
    importers = {"import_module", "__import__", *(alias.asname for node in froms for alias in node.names)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            # import bayes_panns; bayes_panns.cli.main
            chain = dotted(node)
            found |= {chain} if chain.startswith("bayes_panns.") else set()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # importlib.import_module("bayes_panns.cli"), "module:function" and tables of modules
            match = re.fullmatch(r"(bayes_panns(?:\.\w+)+)(?::\w+)?", node.value)
            found |= {match[1]} if match else set()
        if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in importers:
            found |= {resolved(value, package) for value in map(string, node.args[:1]) if value}
    return found - {"bayes_panns"}


def dotted(node):
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def string(node):
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def resolved(name, package):
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    return ".".join([*package.split(".")[: len(package.split(".")) - level + 1], name.lstrip(".")]).rstrip(".")


def violations(source, module, is_package=False):
    """What a module imports against the rules."""
    folder = module.split(".")[1] if "." in module else None
    wrong = []
    for name in sorted(imported(source, module, is_package)):
        top, *rest = name.split(".")
        if top != "bayes_panns":
            if top in FREE_OF.get(folder, ()):
                wrong.append(f"{module} imports {name}, and {folder} does without {top}")
        elif rest[0] == "cli" and folder not in ("cli", "__main__"):
            wrong.append(f"{module} imports {name}, and nothing imports cli")
        elif folder in (None, "__main__") or rest[0] == "__version__":
            continue
        elif rest[0] not in ORDER:
            wrong.append(f"{module} imports {name} of the package itself; name the folder that has it")
        elif ORDER.index(rest[0]) > ORDER.index(folder):
            wrong.append(f"{module} imports {name}, and {rest[0]} is below {folder}")
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_folders_above(module):
    path = MODULES[module]
    assert violations(path.read_text(encoding="utf-8"), module, path.name == "__init__.py") == []


def test_every_module_is_in_a_folder_of_the_order():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ORDER)
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == ["__init__.py", "__main__.py"]
    for module, path in MODULES.items():
        assert (path.parent / "__init__.py").is_file(), f"{module}: its folder has no __init__.py"


@pytest.mark.parametrize(
    "source",
    [
        "import bayes_panns.report",
        "import bayes_panns.report.text.tags as tags",
        "from bayes_panns.report import render",
        "from bayes_panns import report",
        "from ..report import render",
        "from .. import report",
        "from ..report.text.tags import render as r",
        "import bayes_panns\nbayes_panns.report.render",
        "def later():\n    from bayes_panns.report import render",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bayes_panns.report import Page",
        "try:\n    from bayes_panns.report import render\nexcept ImportError:\n    pass",
        "class Lazy:\n    from bayes_panns import report",
        "import importlib\nimportlib.import_module('bayes_panns.report')",
        "from importlib import import_module\nimport_module('..report', __package__)",
        "__import__('bayes_panns.report')",
        "WRITERS = {'page': 'bayes_panns.report:render'}",
        "import sys\nsys.modules['bayes_panns.report']",
    ],
)
def test_every_form_of_import_is_seen(source):
    (wrong,) = {each.rpartition("and ")[2] for each in violations(source, "bayes_panns.svi.fit")}
    assert wrong == "report is below svi"
    assert violations(source, "bayes_panns.interop.export") == []  # interop is below report


@pytest.mark.parametrize(
    ("source", "module", "is_package", "name"),
    [
        ("from . import a", "bayes_panns.bayes.guides", True, "bayes_panns.bayes.guides.a"),
        ("from . import a", "bayes_panns.bayes.guides.b", False, "bayes_panns.bayes.guides.a"),
        ("from .. import a", "bayes_panns.bayes.guides", True, "bayes_panns.bayes.a"),
        ("from ...report import a", "bayes_panns.bayes.guides", True, "bayes_panns.report.a"),
        ("from ...report import a", "bayes_panns.bayes.guides.b", False, "bayes_panns.report.a"),
        ("import_module('.a', __package__)", "bayes_panns.bayes.guides.b", False, "bayes_panns.bayes.guides.a"),
        ("import_module('...report', __package__)", "bayes_panns.bayes.guides", True, "bayes_panns.report"),
    ],
)
def test_relative_imports_are_resolved(source, module, is_package, name):
    assert name in imported(source, module, is_package)


@pytest.mark.parametrize(
    ("source", "module", "message"),
    [
        ("import pyro", "bayes_panns.nets.resnet", "nets does without pyro"),
        ("from pyro.nn import PyroModule", "bayes_panns.nets.resnet", "nets does without pyro"),
        ("def f():\n    import torch.nn", "bayes_panns.metrics.bootstrap", "metrics does without torch"),
        ("from importlib import import_module as get\nget('torch')", "bayes_panns.metrics", "without torch"),
        ("from bayes_panns.cli import main", "bayes_panns", "nothing imports cli"),
        ("TABLE = {'main': ('bayes_panns.cli', 'main')}", "bayes_panns", "nothing imports cli"),
        ("from bayes_panns.cli import main", "bayes_panns.interop.fetch", "nothing imports cli"),
        ("from bayes_panns import load", "bayes_panns.jobs.fit", "name the folder that has it"),
        ("from bayes_panns.utils import helper", "bayes_panns.jobs.fit", "name the folder that has it"),
    ],
)
def test_each_rule_fails_on_a_violation(source, module, message):
    wrong = violations(source, module, is_package=module.count(".") < 2)
    assert wrong
    assert all(message in each for each in wrong)


@pytest.mark.parametrize(
    "source",
    [
        "from bayes_panns import __version__",
        "from . import choices",
        "from bayes_panns.core.errors import FitError",
        "import logging\nlogging.getLogger('bayes_panns')",
        "TEXT = 'see bayes_panns.report for that'",
        "import torch, pyro",
    ],
)
def test_what_is_allowed_is_no_violation(source):
    assert violations(source, "bayes_panns.svi.fit") == []


@pytest.mark.parametrize("folder", FREE_OF)
def test_nothing_unwanted_comes_along(folder):
    modules = [name for name in MODULES if name.split(".")[1:2] == [folder]]
    code = f"import sys, {', '.join(modules)}; print(sorted({FREE_OF[folder]!r} & set(sys.modules)))"
    assert run("-c", code).stdout == "[]\n"


def test_metrics_are_imported_in_a_second():
    # CPU time, and the fastest of three, since the machine may be busy with something else.
    code = "import time; start = time.process_time(); import bayes_panns.metrics; print(time.process_time() - start)"
    assert any(float(run("-c", code).stdout) < 1 for _ in range(3))


def run(*arguments):
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result
