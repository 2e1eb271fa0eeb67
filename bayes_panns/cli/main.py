"""The group of all commands: its help, its messages and progress, its errors and exit codes.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from bayes_panns import __version__
from bayes_panns.cli.signals import sigterm_exits
from bayes_panns.core import progress
from bayes_panns.core.errors import BayesPannsError, SettingError

INTERRUPTED, TERMINATED = 130, 143
"""The exit codes after Ctrl-C and SIGTERM, as shells have them: 128 plus the signal's number."""

SECTIONS = {
    "First look": ("demo",),
    "Clips": ("pack", "repack", "inspect"),
    "Fits": ("pretrain", "finetune", "widths", "crossval", "check-start"),
    "Predictions": ("predict", "embed"),
    "Evaluation": ("evaluate", "calibrate", "report"),
    "Published models": ("fetch", "import", "export"),
}
"""The commands by what people do with them, in the order of the help."""


class Command(click.Command):
    """A command that reports an invalid value of an option as wrong usage."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SettingError as error:
            raise click.UsageError(str(error), ctx) from error


class Commands(click.Group):
    """The group: it reports a user's mistake in one line, without a traceback."""

    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each section, with the first sentence of their help."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=100)) for name in names])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, with its messages and progress on standard error."""
        with _messages(), sigterm_exits() as terminated:
            try:
                with progress.shown(sys.stderr.isatty()):
                    return super().invoke(ctx)
            except BrokenPipeError:
                # The reader, such as head, has read enough; click ends quietly.
                raise
            except (BayesPannsError, OSError) as error:
                _fail(ctx, _one_line(error))
            except KeyboardInterrupt:
                _fail(ctx, "interrupted", INTERRUPTED)
            except click.exceptions.Exit as stop:
                # A fit ends itself on either signal, after the step under way.
                ctx.exit(TERMINATED if stop.exit_code == INTERRUPTED and terminated() else stop.exit_code)
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                _fail(ctx, f"out of memory ({_one_line(error)}); close other programs, or take fewer clips at once")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="bayes-panns")
def main() -> None:
    """Tag sounds, and say how certain the tags are: Bayesian PANNs in Pyro.

    \b
    A first look, on synthetic sounds:
      bayes-panns demo
    Your own recordings, one folder per class:
      bayes-panns pack folder recordings/ -o clips.h5
      bayes-panns pretrain scratch --data clips.h5 -o runs/mine
      bayes-panns predict runs/mine new-recording.wav
    """


class _StandardError(logging.Handler):
    """Prints messages as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        # Not click.echo, which would write into the line of a running bar.
        print(prefix + record.getMessage(), file=sys.stderr)


@contextmanager
def _messages() -> Iterator[None]:
    """Print the package's messages in this block."""
    package, handler = logging.getLogger("bayes_panns"), _StandardError()
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


def _fail(ctx: click.Context, message: str, code: int = 1) -> None:
    click.echo(f"bayes-panns: {message}", err=True)
    ctx.exit(code)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, BayesPannsError) and error.strerror:
        what = error.strerror[0].lower() + error.strerror[1:]
        return what if error.filename is None else f"{error.filename}: {what}"
    return " ".join(str(error).split()) or type(error).__name__


def _out_of_memory(error: Exception) -> bool:
    # Torch has an error of its own for GPUs, and none for the CPU.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "allocate memory" in str(error)))
    )
