"""The group of all commands: its help, its messages and progress, its errors and exit codes.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import click

from bayes_panns import __version__
from bayes_panns.cli.resuming import ResumeOption
from bayes_panns.cli.signals import AGAIN, INTERRUPTED, TERMINATED, signals_exit
from bayes_panns.cli.streams import show_any_text
from bayes_panns.core import progress
from bayes_panns.core.errors import BayesPannsError, LostProcessError, SettingError, out_of_memory, reason
from bayes_panns.core.launch import launch
from bayes_panns.core.text import printable, printable_lines, shortened

logger = logging.getLogger(__name__)

SKIPPED = 3
"""The exit code if some files were skipped, and the others done."""

_EXIT_CODES = """\b
Exit codes:
  0    done
  1    an error: nothing could be done, or a file that was named does not exist
  2    wrong usage
  3    done, but some files could not be read and were skipped; with several processes of a launcher, 0
  75   ended by SIGUSR1, SIGUSR2 or the time limit: run it again to go on
  130  interrupted by Ctrl-C
  143  ended by SIGTERM"""

LINES = "lines"
"""The attribute of a message that has several lines, ``extra={LINES: True}``; in others a line break is escaped."""

SECTIONS = {
    "Start here": ("demo", "learn", "doctor", "completion"),
    "Your recordings": ("predict", "view", "score", "embed"),
    "Your labels": ("acquire", "pack", "repack", "inspect"),
    "Fit a posterior": ("pretrain", "finetune", "widths", "crossval", "check-start"),
    "Know how far to trust it": ("evaluate", "calibrate", "report"),
    "Published models": ("fetch", "import", "export"),
}
"""The commands by what people do with them, in the order of the help."""


SHARED = ("pretrain", "finetune", "crossval", "predict", "embed", "acquire", "evaluate", "calibrate")
"""The commands whose work several processes of a launcher share; docs/scale.md says how."""


class Command(click.Command):
    """A command that reports an invalid value of an option as wrong usage, and several processes that cannot help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of the command line."""
        for option in self.params:
            if isinstance(option, ResumeOption):
                args = option.explicit(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if launch().world > 1 and self.name not in SHARED:
            raise click.UsageError(f"{self.name} is work for one process: start it without torchrun", ctx)
        try:
            return super().invoke(ctx)
        except SettingError as error:
            raise click.UsageError(str(error), ctx) from error


class Commands(click.Group):
    """The group: it reports a user's mistake in one line, without a traceback."""

    command_class = Command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line and run the command; any name can be printed on any terminal."""
        show_any_text()
        if launch().first:
            return super().main(*args, **kwargs)
        # Of several processes the first one prints.
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
            return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options of the group itself."""
        with _printable_usage():
            return super().make_context(*args, **kwargs)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each section, with the first sentence of their help."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                found = [(name, self.commands[name]) for name in names if name in self.commands]
                formatter.write_dl([(name, command.get_short_help_str(limit=100)) for name, command in found])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, with its messages and progress on standard error."""
        with _messages(), _printable_usage(), signals_exit() as ending:
            try:
                with progress.shown(sys.stderr.isatty() and launch().first), ending.first():
                    result = super().invoke(ctx)
                if launch().world > 1:
                    from bayes_panns.ranks import leave

                    leave()
                return result
            except BrokenPipeError:
                # The reader, such as head, has read enough; click ends quietly.
                raise
            except (BayesPannsError, OSError) as error:
                _fail(ctx, reason(error), lost=isinstance(error, LostProcessError))
            except KeyboardInterrupt:
                _fail(ctx, "interrupted", INTERRUPTED)
            except Exception as error:
                if _is_lost(error):
                    _fail(ctx, "another process has ended, so this one ends", lost=True)
                if not out_of_memory(error):
                    raise
                _fail(ctx, f"out of memory ({reason(error)}); close other programs, or take fewer clips at once")


def exit_if_skipped(skipped: int) -> None:
    """End the command with the exit code 3 if it has skipped files.

    Of several processes it is 0: a launcher takes any other for a failure, ends the rest and may start the job again.
    """
    if skipped and launch().world == 1:
        click.get_current_context().exit(SKIPPED)


def exit_stopped(usable: str) -> NoReturn:
    """End the command with the exit code of what ended its fit early.

    Args:
        usable: What there is now, for a message.
    """
    from bayes_panns.svi import Stop, last_stop

    codes = {Stop.TERMINATED: TERMINATED, Stop.REQUESTED: AGAIN, Stop.TIME: AGAIN}
    reason = last_stop() or Stop.INTERRUPTED
    why = f"ended by {reason.value}" if codes.get(reason) == AGAIN else "interrupted"
    logger.info(f"{why}; {usable}")
    click.get_current_context().exit(codes.get(reason, INTERRUPTED))


@click.group(
    cls=Commands, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="bayes-panns")
def main() -> None:
    """Tag sounds, and say how certain the tags are: Bayesian PANNs in Pyro.

    \b
    A first look, on synthetic sounds:
      bayes-panns demo
    Your own clips, a folder for each class; then a disk of recordings:
      bayes-panns learn clips/ -o model
      bayes-panns predict model disk/ -o results/
      bayes-panns view results/
    What is wrong, if something is:
      bayes-panns doctor
    """


class _StandardError(logging.Handler):
    """Prints messages as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        message = record.getMessage()
        shown = printable_lines(message) if getattr(record, LINES, False) else shortened(printable(message))
        # Not click.echo, which would write into the line of a running bar.
        print(prefix + shown, file=sys.stderr)


@contextmanager
def _messages() -> Iterator[None]:
    """Print the package's messages in this block; of several processes those of the first."""
    package = logging.getLogger("bayes_panns")
    handler = _StandardError() if launch().first else logging.NullHandler()
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


@contextmanager
def _printable_usage() -> Iterator[None]:
    """Escape the control characters of what was typed, where it was wrong; of several processes the first says so."""
    try:
        yield
    except click.UsageError as error:
        if launch().world > 1 and not _says(error.message):
            raise click.exceptions.Exit(error.exit_code) from error
        if error.message:
            error.message = shortened(printable_lines(error.message))  # type: ignore[misc]
        raise


def _is_lost(error: Exception) -> bool:
    """Whether an error says that another of several processes cannot be reached."""
    if launch().world == 1:
        return False
    from bayes_panns.ranks import lost

    return lost(error)


def _says(message: str, *, lost: bool = False) -> bool:
    """Whether this one of several processes says an error; if it does not, the one that does has been heard."""
    from bayes_panns.ranks import speaks

    return speaks(message, lost=lost)


def _fail(ctx: click.Context, message: str, code: int = 1, *, lost: bool = False) -> None:
    here = launch()
    if here.world > 1:
        # The launcher ends all processes as soon as one has failed; this one first says why.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not _says(message, lost=lost):
            ctx.exit(code)
        message = message if here.first else f"process {here.rank}: {message}"
    click.echo(f"bayes-panns: {shortened(message)}", err=True)
    ctx.exit(code)
