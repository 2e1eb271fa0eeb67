"""Options that several commands share, and the types of their values."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from bayes_panns.cli import offered
from bayes_panns.cli.guide_option import own_guide
from bayes_panns.core import progress
from bayes_panns.core.choices import Precision
from bayes_panns.core.errors import OutputError, SettingError
from bayes_panns.core.files import require_parent, whole_file
from bayes_panns.core.growing import growing_file, is_special
from bayes_panns.core.recipe_files import Kind
from bayes_panns.core.text import STDIN

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

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The word."""
        return offered.beginning(["moments"], incomplete)


class Channel(click.ParamType):
    """A channel's word or number."""

    name = "mix|left|right|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word, or the number from 1."""
        if value != "mix":
            from bayes_panns.audio.recording import channel_index

            try:
                channel_index(value)
            except SettingError as error:
                self.fail(str(error), param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words."""
        return offered.beginning(["mix", "left", "right"], incomplete)


class Device(click.ParamType):
    """Where to compute; only torch knows whether it is there."""

    name = "device"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words."""
        return offered.beginning(offered.DEVICES, incomplete)


class Recipe(click.ParamType):
    """A recipe: a file, or the name of one that comes with the package.

    Args:
        kind: What it is for.
    """

    def __init__(self, kind: Kind) -> None:
        self.name, self._kind = kind, kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names, and files."""
        return offered.recipes(self._kind, incomplete)


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
        shown: The names that a shell offers.
    """

    def __init__(self, what: str, known: Callable[[], Iterable[str]], shown: Sequence[str]) -> None:
        self.name, self._known, self._shown = what, known, shown

    @property
    def choices(self) -> list[str]:
        """The names."""
        return list(self._known())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name."""
        if value not in self.choices:
            self.fail(f"{value!r} is not one of {', '.join(self.choices)}", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names."""
        return offered.beginning(self._shown, incomplete)


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


CATALOG = Names("CATALOG", _catalogs, offered.CATALOGS)
SPLIT = Names("SPLIT", _splits, offered.SPLITS)
NETWORK = Names("NET", _networks, offered.NETWORKS)
RUN, GUIDE = Recipe("runs"), Recipe("guides")

SHARE = Finite(0, 1, min_open=True, max_open=True)

device = click.option(
    "--device",
    type=Device(),
    metavar="auto|cpu|cuda[:N]|mps",
    default="auto",
    show_default=True,
    help="Where to compute.",
)
precision = click.option(
    "--precision",
    type=click.Choice(Precision.words()),
    default=str(Precision.FLOAT32),
    show_default=True,
    help="What the network computes predictions with; bf16 is for GPUs, and rounds.",
)
workers = click.option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    help="Processes that read clips ahead. By default one fewer than the cores for each process of the fit, at most 4, "
    "with fit.features = none, and with log-mels on disk if the fit is on a GPU; else 0.",
)
draws = click.option(
    "--draws",
    type=DrawsType(),
    help="Posterior draws; 0 is one pass at the posterior mean, moments one pass that propagates moments "
    "[20; 200 where only the last layer is drawn].",
)
channel = click.option(
    "--channel",
    type=Channel(),
    default="mix",
    show_default=True,
    help="Which channel of the files; mix is the mean of all.",
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


def sound_files(named: Sequence[Path]) -> list[Path]:
    """The sound files that were named, and those in the folders that were named; what a folder has else is said.

    Raises:
        AudioError: Some of them do not exist, all of which are named; or a folder holds no sound file.
        UsageError: Standard input is named twice.
    """
    from bayes_panns.audio.walking import named_files

    return [path for path, _ in named_files(named_once(named))]


def named_once(named: Sequence[Path]) -> list[Path]:
    """What was named, if standard input is not named twice.

    Raises:
        UsageError: It is.
    """
    if sum(str(path) == STDIN for path in named) > 1:
        raise click.UsageError("standard input can be read once; name - once")
    return list(named)


def one_target(
    precision: float | None, risk: float | None, false_alarms: float | None
) -> tuple[str | None, float | None]:
    """What decisions are to meet, and how much of it; None for both if nothing is.

    Raises:
        UsageError: Several are given.
    """
    asked = {"precision": precision, "risk": risk, "false-alarms": false_alarms}
    given = {name: value for name, value in asked.items() if value is not None}
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(f'--{name}' for name in given)}: decisions have one target; name one")
    return next(iter(given.items()), (None, None))


def require_output(output: Path | None, inputs: Sequence[Path] = ()) -> None:
    """Check, before any work, that :func:`write` and :func:`results` can write there.

    Args:
        output: The file to write, or None.
        inputs: Files that are read meanwhile, which it must not replace.

    Raises:
        OutputError: It cannot be written, or is one of the inputs.
    """
    if output is None or is_special(output):
        return
    require_parent(output)
    require_other(output, inputs)


def require_other(output: Path, inputs: Sequence[Path]) -> None:
    """Check that a file to write is none of those that are read meanwhile.

    Raises:
        OutputError: It is one of them.
    """
    if output.is_file() and any(_is_same(output, path) for path in inputs if str(path) != STDIN):
        raise OutputError(f"{output}: is one of the files to read; choose another file to write")


def _is_same(output: Path, path: Path) -> bool:
    try:
        return output.samefile(path)
    except (OSError, ValueError):  # It is missing, or no file system takes its name.
        return False


def write(text: str, output: Path | None) -> None:
    """Write to a file, whole or not at all, or to standard output."""
    if output is None:
        click.echo(text, nl=False)
        return
    if is_special(output):
        output.write_text(text, encoding="utf-8")
        return
    with whole_file(output) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def results(output: Path | None) -> Iterator[Callable[[str], None]]:
    """Results that are written as they come, to standard output or to a :func:`~bayes_panns.core.growing.growing_file`.

    Yields:
        A function that writes a piece of text, so that it survives even a kill.
    """
    if output is None:
        # ASCII has no ±, and who reads cp1252 from a pipe may take it for UTF-8.
        plain = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
        # A bar on the same terminal would be written into.
        with progress.hidden(sys.stdout.isatty()):
            # Not click.echo, which takes an ASCII stream for UTF-8.
            yield lambda text: print(text.replace("±", "+-") if plain else text, end="", flush=True)
        return
    with growing_file(output) as file:

        def write(text: str) -> None:
            file.write(text)
            file.flush()

        yield write
