"""Options that several commands share, and the types of their values."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bayes_panns.cli.guide_option import own_guide
from bayes_panns.core.files import require_parent, whole_file

if TYPE_CHECKING:
    from bayes_panns.predictions import Draws

_Command = TypeVar("_Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path)
"""A file or folder, as a :class:`~pathlib.Path`."""


class Numbers(click.ParamType):
    """Different whole numbers from 0 up with commas between them, such as ``1,2,5``."""

    name = "N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The numbers."""
        if isinstance(value, list):
            return value
        words = [word.strip() for word in value.split(",")]
        if not all(word.isascii() and word.isdecimal() for word in words):
            self.fail(f"{value!r}: write whole numbers with commas, such as 1,2,3", param, ctx)
        numbers = [int(word) for word in words]
        if len(set(numbers)) < len(numbers):
            self.fail(f"{value!r}: name each number once", param, ctx)
        return numbers


class DrawsType(click.ParamType):
    """A number of posterior draws, or ``moments``."""

    name = "N|moments"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Draws":
        """The number, or the word."""
        if value == "moments" or isinstance(value, int):
            return value
        if not (value.isascii() and value.isdecimal()):
            self.fail(f"{value!r}: write a whole number from 0 up, or moments", param, ctx)
        return int(value)


class Finite(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Names(click.ParamType):
    """One of some names that a heavy module knows; they are looked up only when they are needed.

    Args:
        what: What they name.
        known: Returns the names.
    """

    def __init__(self, what: str, known: Callable[[], Iterable[str]]) -> None:
        self.name, self._known = what, known

    @property
    def choices(self) -> list[str]:
        """The names."""
        return list(self._known())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name."""
        if value not in self.choices:
            self.fail(f"{value!r} is not one of {', '.join(self.choices)}", param, ctx)
        return value


def _catalogs() -> Iterable[str]:
    from bayes_panns.clips import CATALOGS
    from bayes_panns.clips.catalogs.embeddings import NAME

    return [*CATALOGS, NAME]


def _splits() -> Iterable[str]:
    from bayes_panns.clips.catalogs.audioset import SPLITS

    return SPLITS


def _networks() -> Iterable[str]:
    from bayes_panns.nets import NETS

    return NETS


CATALOG = Names("CATALOG", _catalogs)
SPLIT = Names("SPLIT", _splits)
NETWORK = Names("NET", _networks)

device = click.option(
    "--device", metavar="auto|cpu|cuda[:N]", default="auto", show_default=True, help="Where to compute."
)
draws = click.option(
    "--draws",
    type=DrawsType(),
    help="Posterior draws; 0 is one pass at the posterior mean, moments one pass that propagates moments "
    "[20; 200 where only the last layer is drawn].",
)
guide_function = click.option(
    "--guide",
    "guide_function",
    metavar="MODULE:FUNCTION",
    callback=own_guide,
    help="For a posterior whose guide is a Python function: that function. It is run.",
)
ood = click.option("--ood", multiple=True, type=FOLDER, help="A store of clips that show no label; repeatable.")
changes = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace a value of the recipe; repeatable."
)


def stores(text: str, *, required: bool = False) -> Callable[[_Command], _Command]:
    """The option ``--data``, with its help."""
    return click.option("--data", "stores", multiple=True, required=required, type=FOLDER, help=text)


def folds(text: str) -> Callable[[_Command], _Command]:
    """The option ``--folds``, with its help."""
    return click.option("--folds", type=Numbers(), help=text)


def of_widths(text: str = "") -> Callable[[_Command], _Command]:
    """The options ``--clips`` and ``--kl-weight`` of widths without a fit, with a text that their help begins with."""

    def decorate(command: _Command) -> _Command:
        kl_weight = click.option(
            "--kl-weight",
            type=Finite(min=0, min_open=True),
            help=f"{text}The weight of the KL; below 1 the widths are those of a tempered posterior [1].",
        )
        clips = click.option(
            "--clips",
            type=click.IntRange(min=1),
            help=f"{text}How many clips the posterior is to be of [as many as --data has].",
        )
        return clips(kl_weight(command))

    return decorate


def function_of(guide: str | None) -> str | None:
    """The Python function that ``--guide`` names, if it names one."""
    from bayes_panns.recipes import is_function

    return guide if guide is not None and is_function(guide) else None


def require_output(output: Path | None) -> None:
    """Check, before any work, that :func:`write` can write there."""
    if output is not None:
        require_parent(output)


def write(text: str, output: Path | None) -> None:
    """Write to a file, whole or not at all, or to standard output."""
    if output is None:
        click.echo(text, nl=False)
        return
    with whole_file(output) as part:
        part.write_text(text, encoding="utf-8")
