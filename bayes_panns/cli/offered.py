"""The words that a shell offers on TAB.

The registries that hold some of them need torch, which takes seconds to import. So their names stand here too, and a
test compares them. What a command takes is for the registries alone to say.
"""

import tomllib
from collections.abc import Iterable

from click.shell_completion import CompletionItem

from bayes_panns.core.recipe_files import Kind, folder, names

CATALOGS = ("audioset", "esc50", "urbansound8k", "dcase2013", "folder", "timed", "fsd50k", "embeddings")

SPLITS = ("balanced", "unbalanced", "eval")

_EFFICIENTAT = (
    *("mn01", "mn02", "mn04", "mn05", "mn10", "mn20", "mn30", "mn40"),
    *(f"mn10_as_hop_{milliseconds}" for milliseconds in (5, 15, 20, 25)),
    *(f"mn10_as_mels_{bins}" for bins in (40, 64, 256)),
)
_PANNS = (
    *("cnn6", "cnn10", "cnn14", "cnn14-16k", "cnn14-decision-level-max"),
    *("mobilenetv1", "mobilenetv2", "resnet22", "resnet38", "resnet54"),
)

NETWORKS = (*_PANNS, *_EFFICIENTAT, "resnet14-narrow", "resnet14-coarse")

PUBLISHED = (
    *(f"panns-{name}" for name in _PANNS),
    *("vi-pann-flipout", "vi-pann-deterministic"),
    *(f"efficientat-{name}" for name in _EFFICIENTAT),
    "audioset-labels",
)

DEVICES = ("auto", "cpu", "cuda", "mps")


def beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """The words that begin as what was typed, in their order."""
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def recipes(kind: Kind, incomplete: str) -> list[CompletionItem]:
    """The package's recipes with their descriptions, and files, for a recipe may be one."""
    found = [CompletionItem(incomplete, type="file")]
    for name in names(kind):
        if name.startswith(incomplete):
            with (folder(kind) / f"{name}.toml").open("rb") as file:
                found.append(CompletionItem(name, help=tomllib.load(file).get("description")))
    return found
