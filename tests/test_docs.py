"""The commands that README and the pages show are understood, and their links lead somewhere."""

import os
import re
import shlex
import subprocess

import pytest

from bayes_panns.cli import main
from bayes_panns.predictions import events
from bayes_panns.recipes import names
from tests.pages import DOCS, PAGES, ROOT, blocks, commands, title, understood

DATA_PAGES = sorted((DOCS / "data").glob("*.md"))
STRATEGY_PAGES = sorted((DOCS / "strategies").glob("*.md"))
FITS = ("pretrain", "finetune", "crossval")


def test_every_catalog_has_a_page():
    catalogs = next(each for each in main.commands["pack"].params if each.name == "catalog").type.choices
    assert {page.stem for page in DATA_PAGES} == set(catalogs)
    for page in DATA_PAGES:
        assert ["pack", page.stem] in [words[:2] for words in commands(page)]


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_its_fits_name_recipes_that_there_are(page):
    for name, *words in commands(page):
        if name not in FITS:
            continue
        context = main.commands[name].make_context(name, words)
        assert context.params["run"] in names("runs")
        given = context.params.get("guides") or [context.params.get("guide")]
        own = ("mine.toml", "mine:auto_normal")
        assert all(guide is None or guide in own or guide in names("guides") for guide in given)
        if name == "crossval":
            # The embeddings of another model are its start.
            assert context.params["upstream"] or page.stem == "embeddings"


@pytest.mark.parametrize(("ends_with", "requeued"), [(75, True), (0, False), (1, False)])
def test_the_batch_script_starts_every_process_and_is_run_again_if_it_has_to(ends_with, requeued, tmp_path):
    script = next(block.text for block in blocks(DOCS / "scale.md") if block.text.startswith("#!/bin/bash"))
    assert len(script.splitlines()) <= 15
    asked = re.search(r"-m bayes_panns ([^']*)'", script)[1].replace("\\\n", " ")
    assert understood(["bayes-panns", *shlex.split(asked)])
    stubs = {
        "scontrol": f'[ "$1" = show ] && printf "host0\\nhost1\\n" || echo "$@" > {tmp_path}/requeued',
        "srun": 'for SLURM_PROCID in 0 9; do export SLURM_PROCID SLURM_LOCALID=$((SLURM_PROCID % 8)); "$@"; done',
        "python": f"echo $MASTER_ADDR $RANK $LOCAL_RANK $LOCAL_WORLD_SIZE $WORLD_SIZE >> {tmp_path}/ranks"
        f"\nexit {ends_with}",
    }
    for name, text in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "32"}
    done = subprocess.run(["bash", "-c", script], env=environment | {"SLURM_NTASKS_PER_NODE": "8"}, check=False)
    assert done.returncode == ends_with
    assert (tmp_path / "ranks").read_text() == "host0 0 0 8 32\nhost0 9 1 8 32\n"
    assert (tmp_path / "requeued").exists() == requeued


def test_the_page_of_commands_lists_each_of_them():
    text = (DOCS / "commands" / "index.md").read_text(encoding="utf-8")
    table = text[text.index("| command |") : text.index("## Exit codes")]
    listed = {
        name
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([a-z-]+)`", row.split("|")[1:2][0] if row else "")
    }
    assert listed == set(main.commands)
    shown = {words[0] for page in PAGES for words in commands(page)}
    assert shown == set(main.commands)


def test_the_pages_of_strategies_have_each_guide():
    text = (DOCS / "strategies" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"guides/([\w-]+)\.toml\)", text)) == set(names("guides"))
    pages = [page.read_text(encoding="utf-8") for page in STRATEGY_PAGES if page.stem != "index"]
    for guide in names("guides"):
        assert any(re.search(rf"^#+ .*`{guide}`", page, re.MULTILINE) for page in pages), guide
    for page in pages:
        missing = [each for each in ("assume", "Advantages", "Limits", "Measured") if f"{each}" not in page]
        assert not missing


def test_the_readme_is_two_screens_and_begins_with_make():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110
    order = [line for line in lines[:40] if re.match(r"make (demo|test)|bayes-panns (learn|predict)|!\[", line)]
    assert [line.split()[1] for line in order[:2]] == ["demo", "test"]
    shown = {words[0] for words in commands(ROOT / "README.md")}
    assert shown >= {"learn", "predict", "view", "fetch", "import"}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_its_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if place.parent == DOCS / "commands" and place.stem in main.commands:
            continue  # written from the command's help when the site is built
        assert place.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings], target


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=title)
def test_a_page_names_no_folder_outside_the_checkout(page):
    assert "../shared" not in page.read_text(encoding="utf-8")


def test_the_layout_that_contributing_shows_is_the_one_there_is():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text[text.index("bayes_panns/\n") : text.index("guides/   ")]
    listed = re.findall(r"^  (\w+)/", block, re.MULTILINE)
    folders = {path.name for path in (ROOT / "bayes_panns").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(listed) == folders
    # In the order in which they may import each other.
    layers = (ROOT / "tests" / "test_layers.py").read_text(encoding="utf-8")
    assert listed == re.findall(r'^    "(\w+)",$', layers[layers.index("ORDER") : layers.index("]")], re.MULTILINE)


def test_the_pages_state_the_exponent_of_an_event():
    exponent = events._SHARPNESS
    assert f"^{{{exponent}}}" in (DOCS / "mathematics" / "decisions.md").read_text(encoding="utf-8")
    assert f"p_d(t)^{exponent} )^(1/{exponent})" in (DOCS / "events.md").read_text(encoding="utf-8")
    assert f"p_d(t)^{exponent} ]^(1/{exponent})" in events.EventFinder.__doc__
