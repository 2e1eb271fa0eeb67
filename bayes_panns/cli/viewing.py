"""The command that shows results in a browser."""

import logging
import webbrowser
from pathlib import Path

import click

from bayes_panns.cli import options
from bayes_panns.cli.main import main

logger = logging.getLogger(__name__)


@main.command()
@click.argument("results", type=options.FOLDER)
@click.option(
    "--recordings",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Where the recordings are now, if they have moved.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to listen at [a free one].")
@click.option("--browser/--no-browser", default=True, help="Open a browser [yes].")
def view(results: Path, recordings: Path | None, port: int, browser: bool) -> None:
    """Look through the results of predict: timeline, spectrogram, playback, events, and keys to label them.

    RESULTS is the folder that `predict -o RESULTS/` wrote, which may still be growing. The page is for this computer
    only and asks for nothing elsewhere. What you label is in RESULTS/labels.csv at once, for `pack timed`. Ctrl-C ends
    it.

    \b
    Example:
      bayes-panns predict runs/birds disk/ -o results/
      bayes-panns view results/
      bayes-panns pack timed results/labels.csv -o labelled.h5 --seconds 2.5
    """
    from bayes_panns.report.view import ViewServer

    with ViewServer(results, recordings, port) as server:
        click.echo(server.address)
        logger.info("the page is at the address above, for this computer only; Ctrl-C ends it")
        if browser and not webbrowser.open(server.address):
            logger.info("no browser could be opened; open the address yourself")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            # The way to end it, not an interruption of work.
            logger.info("closed")
