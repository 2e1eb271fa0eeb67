"""The command that shows the package at work."""

from pathlib import Path

import click

from bayes_panns.cli import options
from bayes_panns.cli.main import main
from bayes_panns.core.files import require_folder


@main.command()
@click.option(
    "-o", "--out", type=options.FOLDER, default=Path("demo"), show_default=True, help="The folder of the results."
)
@options.device
def demo(out: Path, device: str) -> None:
    """Show the whole story on synthetic soundscapes: minutes on two cores.

    Makes clips of many kinds of sound, pretrains on some, transfers the posterior to others, and compares it with the
    same model from scratch, on held-out clips and on kinds of sound that are new to both. Needs no download.

    \b
    Example:
      bayes-panns demo -o demo
    """
    from bayes_panns.cli.demo_story import run

    require_folder(out)
    run(out, device=device)
