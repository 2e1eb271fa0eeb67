"""The options of work that takes days: whether to resume it, when to write checkpoints, when to end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

from bayes_panns.cli import offered, options
from bayes_panns.core.durations import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from bayes_panns.svi import Running

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_AUTO = "auto"


class _Word(click.ParamType):
    """The word after ``--resume``, or none."""

    name = _AUTO

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "bool | Literal['auto']":
        """Whether to resume."""
        if isinstance(value, bool):
            return value
        if value not in ("", _AUTO):
            self.fail(f"{value!r}: write --resume or --resume {_AUTO}", param, ctx)
        return "auto" if value else True

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The word."""
        return offered.beginning([_AUTO], incomplete)


class ResumeOption(click.Option):
    """``--resume``, or ``--resume auto``; what else follows it is an argument of the command.

    click takes whatever follows an option that may have a value for that value.
    """

    def explicit(self, args: Sequence[str]) -> list[str]:
        """The words of a command line, in which the option has a value of its own, which may be empty."""
        found = list(args)
        end = found.index("--") if "--" in found else len(found)
        for place in range(end):
            if found[place] in self.opts and _AUTO not in found[place + 1 : place + 2]:
                found[place] += "="
        return found


class _Duration(click.ParamType):
    """A length of time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Its seconds."""
        if isinstance(value, float):
            return value
        try:
            return seconds_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def resume(text: str) -> "Callable[[_Command], _Command]":
    """The option ``--resume``, with its help."""
    return click.option("--resume", cls=ResumeOption, type=_Word(), metavar="[auto]", default=False, help=text)


def limits(command: _Command) -> _Command:
    """The options ``--checkpoint-minutes`` and ``--time-limit`` of fits."""
    minutes = click.option(
        "--checkpoint-minutes",
        type=options.Finite(min=0, min_open=True),
        metavar="M",
        default=10.0,
        show_default=True,
        help="The longest time from one checkpoint to the next.",
    )
    limit = click.option(
        "--time-limit",
        type=_Duration(),
        metavar="TIME",
        help="HH:MM, HH:MM:SS, D-HH:MM:SS or seconds: end before, with a checkpoint and exit code 75 "
        "[when the SLURM job ends, if it is one].",
    )
    return minutes(limit(command))


def running(**given: Any) -> "Running":
    """How a fit runs on this machine, from the options that say so."""
    from bayes_panns.svi import Running

    return Running(**given)
