"""Every code block of every page runs, on tiny recordings, stores and posteriors; or is at least understood."""

import shutil
from itertools import pairwise
from pathlib import Path

import click.testing
import numpy as np
import pytest
import soundfile
import torch

from bayes_panns import recipes
from bayes_panns.cli import main
from bayes_panns.clips import Task, write
from bayes_panns.nets import NETS
from bayes_panns.posterior import Posterior, save
from bayes_panns.recipes import read_run, read_strategy
from tests.pages import DOCS, LANGUAGES, PAGES, blocks, shell_lines, title, understood

RATE, SECONDS, LABELS = 32000, 0.5, ("dog", "rain", "siren")

CLIPS = 24

EVERY = [block for page in PAGES for block in blocks(page)]

ELSEWHERE = {
    "docs/transfer-study.md": "needs UrbanSound8K and ESC-10; the study's own tests run what it says",
    "docs/published-checkpoints.md": "tests/interop/test_docs.py runs it, with the networks that it is about",
}
"""Pages whose Python blocks other tests run, or none can."""

LONG = {"learn"}
"""Pages whose Python blocks make long runs."""

RUN = {
    "docs/own-clips.md",
    "docs/out-of-distribution.md",
    "docs/own-prior-and-guide.md",
    "docs/strategies/mixtures.md",
    "docs/events.md",
    "docs/deciding.md",
    "docs/active-learning.md",
    "docs/long-recordings.md",
    "docs/doctor.md",
}
"""Pages whose commands are run, and not only parsed."""


SOUNDS = ("dog", "any-recording", "0_george_0", "recordings/a", "recordings/b", "new-recordings/a", "new-recordings/b")

FITS = ("pretrain", "finetune", "crossval")
QUICK = "fit.epochs=1"

NOT_RUN = {"fetch", "score", "demo", "view", "learn", "crossval", "report", "check-start"}
"""Commands that need the network, a browser or found events, or take long; they have tests of their own."""

WRITTEN = {"-o", "--out", "--json"}
"""Options that name what a command writes."""


def named(block):
    return f"{title(block.page)}:{block.line}"


def of(language):
    return [block for block in EVERY if block.language == language]


def sound(seconds, seed):
    return (0.1 * np.random.default_rng(seed).normal(size=round(RATE * seconds))).astype(np.float32)


RUNNING = sorted({block.page for block in of("python") if title(block.page) not in ELSEWHERE})
"""The pages whose Python runs here."""


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """What the pages take for granted: recordings, stores and posteriors, under the names that the pages use."""
    home = tmp_path_factory.mktemp("home")
    for name in SOUNDS:
        (home / name).parent.mkdir(exist_ok=True)
        soundfile.write(home / f"{name}.wav", sound(1.2, len(name)), RATE)
    for label in LABELS:
        (home / "my_clips" / label).mkdir(parents=True)
        for index in range(4):
            soundfile.write(home / "my_clips" / label / f"{index}.wav", sound(SECONDS, index), RATE)
    shutil.copytree(home / "recordings", home / "disk")
    (home / "annotations.csv").write_text("file,labels,start,end\ndisk/a.wav,dog,0.1,0.6\ndisk/b.wav,rain,0.2,0.9\n")
    (home / "stores").mkdir()
    target = np.eye(3, dtype=bool)[np.arange(CLIPS) % 3]
    fold = np.arange(CLIPS) // 3 % 5 + 1
    for seed, name in enumerate(("clips", "test", "stores/esc10", "stores/fsdd", "stores/mine")):
        waveforms = np.stack([sound(SECONDS, 100 * seed + index) for index in range(CLIPS)])
        write(home / f"{name}.h5", waveforms, target, LABELS, Task.ONE_OF_K, RATE, fold=fold)
    torch.manual_seed(0)
    posterior = Posterior.build(
        net="resnet14-narrow",
        labels=LABELS,
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=SECONDS,
        strategy=read_strategy("det-flip"),
    )
    save(posterior, home / "model")
    for name in ("runs/esc10", "runs/esc10-held", "runs/det-0", "runs/det-1", "runs/det-2", "runs/us8k"):
        shutil.copytree(home / "model", home / name)
    for name in ("checkpoints/mn04", "checkpoints/panns"):
        shutil.copytree(home / "model", home / name)
    return home


@pytest.fixture
def home(material, tmp_path, monkeypatch):
    """A copy of the material, in which a page's blocks run; guides in Python are found there."""
    place = tmp_path / "home"
    shutil.copytree(material, place)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    return place


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_a_block_says_its_language(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, named(block)


@pytest.mark.parametrize("block", of("sh"), ids=named)
def test_a_shell_block_is_understood(block):
    for words in shell_lines(block):
        assert understood(words), words


@pytest.mark.parametrize("block", of("toml"), ids=named)
def test_a_recipe_is_read(block, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(block.text, encoding="utf-8")
    if "[[rule]]" in block.text or "[default]" in block.text:
        assert read_strategy(recipe).default
    else:
        assert read_run(recipe, [])


def given(page):
    """The names that the first block of a page takes for granted."""
    logmel, waveforms = torch.randn(4, 64, 64), torch.randn(2, round(RATE * SECONDS))
    labels, files = np.array(["a", "b", "a"]), np.array(["x.wav"] * 3)
    return {
        "embeddings.md": {"np": np, "vectors": np.eye(3), "labels": labels, "files": files},
        "pyro.md": {"logmel": logmel, "label": torch.tensor([0, 1, 2, 0]), "waveforms": waveforms},
    }.get(page.name, {})


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.long if page.stem in LONG else ()) for page in RUNNING], ids=title
)
def test_the_python_of_a_page_runs(page, home, monkeypatch):
    monkeypatch.setitem(NETS, "resnet54", NETS["resnet14-narrow"])  # the same code, in a hundredth of the time
    if "load(" in page.read_text(encoding="utf-8") and "fit(" not in page.read_text(encoding="utf-8"):
        shutil.copytree(home / "model", home / "runs" / "mine")
    monkeypatch.setattr(recipes, "read_run", lambda run, changes=(), **more: read_run(run, [*changes, QUICK], **more))
    names = given(page)
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, named(block), "exec"), names)


def can_run(words):
    """Whether a command is one that these tests run, and the files and folders that it reads are there."""
    named_files = [
        word
        for before, word in pairwise(words)
        if before not in WRITTEN and ("/" in word or Path(word).suffix in (".h5", ".csv", ".wav", ".toml", ".npz"))
    ]
    return words[0] == "bayes-panns" and words[1] not in NOT_RUN and all(Path(each).exists() for each in named_files)


@pytest.mark.parametrize("page", sorted(DOCS.parent / page for page in RUN), ids=title)
def test_the_commands_of_a_page_run(page, home):
    ran = 0
    shutil.copytree(home / "model", home / "runs" / "mine")
    for block in blocks(page):
        first, _, rest = block.text.partition("\n")
        if block.language in ("toml", "python") and first.startswith("# mine."):
            Path(first.split()[1].rstrip(":")).write_text(rest, encoding="utf-8")
        for words in shell_lines(block) if block.language == "sh" else ():
            if can_run(words):
                if words[1] in FITS:
                    words += ["--set", QUICK]
                    shutil.rmtree(words[words.index("-o") + 1], ignore_errors=True)
                done = click.testing.CliRunner().invoke(main, words[1:])
                assert done.exit_code == 0, (words, done.output)
                ran += 1
    assert ran
