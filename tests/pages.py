"""The pages of the documentation as tests read them: code blocks, and the commands in them."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click

from bayes_panns.cli import main
from benchmarks.__main__ import main as benchmarks

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
    ROOT / "examples" / "README.md",
    ROOT / "benchmarks" / "README.md",
]
"""What people read. CHANGELOG.md has no blocks."""

LANGUAGES = {"python", "sh", "toml", "text", "json", "csv"}
"""Those that a block may be marked with; ``text`` is what no test reads: what a screen shows, a folder's content."""

OTHER_PROGRAMS = {"cd", "ffmpeg", "git", "mkdir", "source", "for", "do", "done"}
"""What shell blocks use besides our own commands, pip and make."""

_FENCE = re.compile(r"^( *)(`{3,})(\w*) *\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block: its page, its line from 1, its language, its text."""

    page: Path
    line: int
    language: str
    text: str


def title(path):
    """A page's path in the checkout."""
    return path.relative_to(ROOT).as_posix()


def blocks(page):
    """The code blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[3], re.sub(f"^{found[1]}", "", found[4], flags=re.M))
        for found in _FENCE.finditer(text)
    ]


def filled(page, text):
    """Shell text with its lines joined and the variables of its page filled in."""
    text = re.sub(r"[<$]\((bayes-panns [^)]*)\)", r"FILE\n\1", text.replace("\\\n", " "))
    text = re.sub(r"\$\(printf -- '(.*?)%s ' .*?\)", r"\1some.h5", text)
    assigned = re.findall(r"^([A-Z]+)='?(.*?)'?(?: +#.*)?$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for name, value in assigned:
        text = text.replace(f"${name}", value)
    return text.replace("$fold", "1")


def shell_lines(block):
    """The commands of a shell block, each as its words."""
    found = []
    for line in filled(block.page, block.text).splitlines():
        words = shlex.split(line, comments=True)
        if words and not re.fullmatch(r"[A-Z]+=.*", words[0]):
            found.append(words)
    return found


def launched(words):
    """A command in the form ``bayes-panns ...``, whatever launches its processes."""
    if words[0] == "torchrun" and words.count("-m") == 1:
        module, *rest = words[words.index("-m") + 1 :]
        return ["bayes-panns", *rest] if module == "bayes_panns" else words
    return words


def commands(page):
    """The arguments of every ``bayes-panns`` command in a page."""
    lines = [launched(words) for block in blocks(page) if block.language == "sh" for words in shell_lines(block)]
    return [words[1:] for words in lines if words[0] == "bayes-panns"]


def understood(words):
    """Whether a command is one of ours with options that it has, an installation of ours, or a program that is allowed.

    Raises:
        click.UsageError: An option or argument that the command does not have.
    """
    while "|" in words:
        understood(words[: words.index("|")])
        words = words[words.index("|") + 1 :]
    program, *rest = words = launched(words)
    if program == "bayes-panns":
        return parsed(main, rest)
    if words[:3] == ["python", "-m", "benchmarks"]:
        return parsed(benchmarks, words[3:])
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return all(word in targets for word in rest if "=" not in word)
    if words[:2] == ["pip", "install"]:
        given = {name for word in rest for names in re.findall(r"\[(.*?)\]", word) for name in names.split(",")}
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        return given <= set(extras["project"]["optional-dependencies"])
    if program == "python":
        return (ROOT / rest[0]).is_file()
    return program in OTHER_PROGRAMS


def parsed(group, words):
    """Whether click takes the words, without running them."""
    name, *rest = words
    try:
        group.commands[name].make_context(name, rest)
    except click.exceptions.Exit:  # --help, --version
        return True
    except click.BadParameter as error:
        return "does not exist" in error.message  # a file of the reader's
    return True
