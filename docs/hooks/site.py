"""What MkDocs does not do by itself: pages of commands and of files, and equations as MathML.

- Every command has a page, written from its ``--help``.
- A link from a page to a file of the checkout leads to a page that shows the file, so that nothing leaves the site.
- Equations become MathML while the site is built, so that a browser needs no script for them.
"""

import ast
import html
import inspect
import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import click
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

COMMANDS = "commands"
FILES = "files"
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".cff": "yaml"}
PICTURES = {".png", ".svg", ".webp"}
SHOWN = {".toml", ".py", ".md"}
"""The endings of the files that the page of a folder lists."""

BOOSTS = {"learn.md": 2, f"{FILES}/": 0.2, "reference/": 0.4, f"{COMMANDS}/": 0.7, "mathematics/": 0.9}
"""How much a word counts in a search, by the beginning of a page's path; 1 elsewhere."""

_FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*~* *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_PACKAGE = re.compile(r"^::: (bayes_panns\.\w+)$", re.MULTILINE)
_EXTERNAL = re.compile(r'<a [^>]*href="(https?://[^"]+)"')
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\(\(|\[)(.*?)\\(?:\)|\])</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the commands into the navigation, by the sections of the help."""
    from bayes_panns.cli import main
    from bayes_panns.cli.main import SECTIONS

    sections = [
        {title: [{name: f"{COMMANDS}/{name}.md"} for name in names if name in main.commands]}
        for title, names in SECTIONS.items()
    ]
    for entry in config.nav or []:
        for title, pages in entry.items() if isinstance(entry, dict) else ():
            if title == "Commands":
                pages.extend(sections)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of commands, and those of the files that pages link to."""
    from bayes_panns.cli import main

    for name, command in sorted(main.commands.items()):
        text = command_page(name, command)
        files.append(File.generated(config, f"{COMMANDS}/{name}.md", content=text))
    waiting = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    known = set()
    while waiting:
        page, text = waiting.pop()
        for target in linked_files(page, text):
            if target in known:
                continue
            known.add(target)
            if (ROOT / target).suffix in PICTURES:
                files.append(File.generated(config, f"{FILES}/{target}", abs_src_path=str(ROOT / target)))
                continue
            content = file_page(target)
            files.append(File.generated(config, shown_at(target), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
            waiting.append((shown_at(target), content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the checkout to the pages that show them, and let the search find explanations first."""
    for prefix, boost in BOOSTS.items():
        if page.file.src_uri.startswith(prefix):
            page.meta.setdefault("search", {"boost": boost})
    if page.file.src_uri.startswith("reference/"):
        markdown = _PACKAGE.sub(lambda package: package[0] + hidden_names(package[1]), markdown)
    return outside_fences(markdown, lambda text: _LINK.sub(lambda link: turned(page.file.src_uri, link), text))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make MathML of equations."""
    return _EQUATION.sub(mathml, content)


def on_post_build(config: MkDocsConfig) -> None:
    """List the links that lead out of the site, for who wants to check them."""
    site = Path(config.site_dir)
    found: set[str] = set()
    for page in site.rglob("*.html"):
        found.update(html.unescape(link) for link in _EXTERNAL.findall(page.read_text(encoding="utf-8")))
    (site / "external-links.txt").write_text("\n".join([*sorted(found), ""]), encoding="utf-8")


# Equations


def mathml(match: re.Match[str]) -> str:
    """An equation in TeX as MathML."""
    tex = html.unescape(match[3]).strip()
    try:
        made = convert(tex, display="block" if match[2] == "[" else "inline")
    except Exception as error:
        raise PluginError(f"an equation that cannot be read: {tex} ({error})") from error
    if "&amp;" in made or "\\" in made:
        raise PluginError(f"an equation with a command that MathML is not made of: {tex}")
    return made.replace("<mi>log</mi>", '<mi>log</mi><mspace width="0.17em"/>')


# Links to files of the checkout


def origin(page: str) -> str:
    """The path in the checkout of what a page shows."""
    if page.startswith(f"{FILES}/"):
        path = page.removeprefix(f"{FILES}/")
        if path.endswith("/index.md"):
            return path
        return path if (ROOT / path).is_file() else path.removesuffix(".md")
    return f"docs/{page}"


def shown_at(path: str) -> str:
    """The page of a file of the checkout, or of a folder, whose path ends with a slash."""
    if path.endswith("/"):
        return f"{FILES}/{path}index.md"
    return f"{FILES}/{path}" if path.endswith(".md") else f"{FILES}/{path}.md"


def outside_fences(markdown: str, change: Any) -> str:
    """Markdown with a change made everywhere but in its code blocks."""
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def checkout_path(page: str, target: str) -> str | None:
    """The path in the checkout that a page's link leads to, or None for a link to the web or within the page."""
    path = target.partition("#")[0]
    if not path or re.match(r"[a-z]+:", target):
        return None
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(origin(page)), path))
    if (ROOT / joined).is_dir() and not joined.startswith("docs"):
        readme = f"{joined}/README.md"
        return readme if (ROOT / readme).is_file() else f"{joined}/"
    return joined


def linked_files(page: str, markdown: str) -> list[str]:
    """The files of the checkout, outside docs/, that a page links to."""
    found: list[str] = []

    def note(text: str) -> str:
        for link in _LINK.finditer(text):
            path = checkout_path(page, link[2])
            if path and not path.startswith(("docs/", "..")) and (ROOT / path).exists():
                found.append(path)
        return text

    outside_fences(markdown, note)
    return found


def turned(page: str, link: re.Match[str]) -> str:
    """A link of a page, led to where the site has its target."""
    path = checkout_path(page, link[2])
    if path is None or (page.startswith(f"{COMMANDS}/") and not path.startswith("docs/")):
        return link[0]
    heading = link[2].partition("#")[2]
    if path.startswith("docs/"):
        place = path.removeprefix("docs/")
    elif (ROOT / path).exists():
        place = f"{FILES}/{path}" if Path(path).suffix in PICTURES else shown_at(path)
    else:
        return link[0]  # MkDocs warns of it
    relative = os.path.relpath(place, posixpath.dirname(page) or ".").replace(os.sep, "/")
    return f"{link[1]}{relative}{'#' + heading if heading else ''}{link[3]}"


def file_page(path: str) -> str:
    """A page that shows a file of the checkout: Markdown as it is, a notebook by its cells, the rest as code."""
    if path.endswith("/"):
        return folder_page(path)
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    if path.startswith("examples/notebooks/"):
        return notebook_page(path, text)
    language = LANGUAGES.get(Path(path).suffix, "text")
    return f"# {Path(path).name}\n\n`{path}`\n\n{fenced(text, language)}\n"


def folder_page(path: str) -> str:
    """A page that lists the files of a folder."""
    names = [file.name for file in sorted((ROOT / path).iterdir()) if file.suffix in SHOWN]
    return "\n".join([f"# {path}", "", *(f"- [{name}]({name})" for name in names), ""])


def notebook_page(path: str, text: str) -> str:
    """A notebook in jupytext's percent format as a page of text and code."""
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)[1:]
    parts = []
    for cell in cells:
        kind, _, body = cell.partition("\n")
        if "[markdown]" in kind:
            parts.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip())
        elif body.strip():
            parts.append(fenced(body, "python"))
    parts.insert(1, f"This is the notebook `{path}`.")
    return "\n\n".join(parts) + "\n"


def fenced(text: str, language: str) -> str:
    """A code block."""
    return f"````{language}\n{text.strip()}\n````"


# The reference


def hidden_names(package: str) -> str:
    """Blocks for the names of a package that have the name of one of its modules, which would hide them."""
    blocks = []
    for name in imported(package):
        *through, home = homes(package, name)
        if any(source(f"{module}.{name}") for module in through):
            blocks.append(
                f"\n\n::: {home}.{name}\n    options:\n      show_root_heading: true\n"
                "      show_root_toc_entry: true\n      show_root_full_path: false\n"
            )
    return "".join(blocks)


def imported(module: str) -> dict[str, str]:
    """The names that a module imports from others, each with the module that it is imported from."""
    path = source(module)
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path else ()
    statements = [each for each in nodes if isinstance(each, ast.ImportFrom) and each.module not in (None, module)]
    return {name.name: str(each.module) for each in statements for name in each.names}


def homes(module: str, name: str) -> list[str]:
    """The modules from which a name is imported in turn; the last one defines it."""
    further = imported(module).get(name)
    return [module, *homes(further, name)] if further else [module]


def source(module: str) -> Path | None:
    """The file of a module or package, if there is one."""
    path = ROOT.joinpath(*module.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


# Commands


def command_page(name: str, command: click.Command) -> str:
    """The page of a command: what ``--help`` says."""
    context = click.Context(command, info_name=f"bayes-panns {name}", max_content_width=88)
    with context:
        usage = " ".join(command.collect_usage_pieces(context))
    prose, examples = [], []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            lines = paragraph.splitlines()[1:]
            shown = inspect.cleandoc("\n".join(lines[1:]))
            is_code = lines[0].rstrip().endswith(":")
            examples.append(f"{lines[0].strip()}\n\n{fenced(shown if is_code else chr(10).join(lines), 'sh')}")
        else:
            prose.append(escaped(paragraph))
    parts = [
        f"# {name}",
        *prose[:1],
        fenced(f"bayes-panns {name} {usage}", "text"),
        *prose[1:],
        *examples,
        "## Options",
        options_table(command, context),
    ]
    return "\n\n".join(parts) + "\n"


def options_table(command: click.Command, context: click.Context) -> str:
    """The options of a command, as ``--help`` lists them."""
    rows = ["| option | what |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            names, text = record
            rows.append(f"| `{names.replace('|', chr(0x2223))}` | {escaped(text).replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def escaped(text: str) -> str:
    """A text of the help as Markdown: nothing in it is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#$])", r"\\\1", re.sub(r"\s*\n\s*", " ", text))
