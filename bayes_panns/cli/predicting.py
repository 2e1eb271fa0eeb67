"""The commands that tag sounds."""

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bayes_panns.cli import options
from bayes_panns.cli.main import exit_if_skipped, main
from bayes_panns.core.choices import TagFormat

if TYPE_CHECKING:
    from bayes_panns.audio.recording import Note
    from bayes_panns.predictions import Draws, Skipped

logger = logging.getLogger(__name__)

_LENGTH = options.Finite(min=0.001)


@main.command()
@click.argument("posterior", type=options.FOLDER)
@click.argument("files", nargs=-1, required=True, type=options.FOLDER, metavar="FILE...")
@click.option(
    "--with",
    "others",
    multiple=True,
    type=options.FOLDER,
    metavar="POSTERIOR",
    help="Another posterior of the same labels, for an ensemble; repeatable.",
)
@options.draws
@click.option(
    "--format",
    "form",
    type=click.Choice(TagFormat.words()),
    default=str(TagFormat.TABLE),
    show_default=True,
    help="How to write the tags.",
)
@click.option("-o", "--out", type=options.FOLDER, help="The file to write, instead of standard output.")
@click.option("--window", type=_LENGTH, help="Seconds of a window [the clips' length].")
@click.option("--hop", type=_LENGTH, help="Seconds from one window to the next [the window].")
@options.channel
@options.device
@options.guide_function
def predict(
    posterior: Path,
    files: tuple[Path, ...],
    others: tuple[Path, ...],
    draws: "Draws | None",
    form: str,
    out: Path | None,
    window: float | None,
    hop: float | None,
    channel: str,
    device: str,
    guide_function: str | None,
) -> None:
    """Tag sound files, or folders of them, with the uncertainty of each tag.

    A file that is longer than the posterior's clips is cut into windows. Several posteriors share the --draws. The FILE
    - is standard input.

    Tags are written as they come. With -o they go to OUT.part, which takes the place of OUT at the end; after an
    interruption or an error it holds the tags so far, and OUT is as it was. A file that cannot be read is skipped, and
    the exit code is then 3.

    \b
    Example:
      bayes-panns predict runs/esc10 dog.wav rain.mp3
      bayes-panns predict runs/esc10 recordings/ --format csv -o tags.csv
      ffmpeg -i talk.mkv -f wav - | bayes-panns predict runs/esc10 -
      bayes-panns predict runs/det-0 --with runs/det-1 --with runs/det-2 dog.wav
    """
    from bayes_panns.posterior import choose_device, load_all
    from bayes_panns.predictions import Skipped, none_read, tag_each
    from bayes_panns.report import tag_text

    paths = options.sound_files(files)
    options.require_output(out, paths)
    if form == TagFormat.AUDACITY and len(paths) > 1:
        raise click.UsageError("--format audacity makes a label track of one file; name one")
    loaded = load_all([posterior, *others], device=choose_device(device), guide_function=guide_function)
    coverage = None if loaded.calibration is None else loaded.calibration.coverage
    text, summary = tag_text(form, loaded.labels, coverage=coverage), _Summary("tagged", len(paths))
    with options.results(out) as write:
        try:
            for each in tag_each(loaded, paths, draws, window=window, hop=hop, channel=channel):
                if isinstance(each, Skipped):
                    summary.skip(each)
                    continue
                write(text.add(each))
                if each.complete:
                    summary.files += 1
                for note in each.notes:
                    summary.note(each.file, note)
            if text.empty:
                raise none_read(summary.skipped, "tag")
        finally:
            # What was written before an interruption is a whole document too.
            write(text.end())
    summary.end(out)


@main.command()
@click.argument("posterior", type=options.FOLDER)
@click.argument("files", nargs=-1, required=True, type=options.FOLDER, metavar="FILE...")
@click.option("-o", "--out", required=True, type=options.FOLDER, help="The file to write: .npz, .parquet or .csv.")
@click.option("--window", type=_LENGTH, help="Seconds of a window [the clips' length].")
@click.option("--hop", type=_LENGTH, help="Seconds from one window to the next [the window].")
@options.channel
@options.device
@options.guide_function
def embed(
    posterior: Path,
    files: tuple[Path, ...],
    out: Path,
    window: float | None,
    hop: float | None,
    channel: str,
    device: str,
    guide_function: str | None,
) -> None:
    """Write the embeddings of sound files, folders or stores: what the posterior's last layer takes, a row a window.

    The rows have the file, the window's start and end in seconds, and the embedding. From stores, names, labels, folds
    and recordings come along. `pack embeddings` makes a store of the file. The FILE - is standard input. A file that
    cannot be read is skipped, and the exit code is then 3.

    \b
    Example:
      bayes-panns embed runs/us8k recordings/ -o recordings.npz
      bayes-panns embed runs/us8k stores/esc10.h5 -o esc10.npz
      bayes-panns pack embeddings esc10.npz -o stores/esc10-embedded.h5
    """
    from bayes_panns.jobs import choose_device
    from bayes_panns.jobs import embed as embed_to_file
    from bayes_panns.posterior import load

    paths = options.sound_files(files)
    options.require_output(out, paths)
    loaded = load(posterior, device=choose_device(device), guide_function=guide_function)
    embedded = embed_to_file(loaded, paths, out, window=window, hop=hop, channel=channel)
    summary = _Summary("embedded", len(paths))
    for each in embedded.skipped:
        summary.skip(each)
    for file, note in embedded.notes:
        summary.note(file, note)
    summary.files = len(paths) - len(embedded.skipped)
    rows, width = embedded.embedding.shape
    logger.info(f"{out}: {rows} rows of {width} numbers, {summary}")
    exit_if_skipped(len(summary.skipped))


class _Summary:
    """What has become of the files of a command; each thing that a user should know of one is said at once."""

    def __init__(self, done: str, of: int) -> None:
        self._of = of
        self.files, self.skipped = 0, list["Skipped"]()
        self._done, self._notes = done, Counter[str]()

    def skip(self, file: "Skipped") -> None:
        self.skipped.append(file)
        # Of a single file this is the error that ends the command.
        if self._of > 1:
            logger.info(f"skipped {file.reason}")

    def note(self, file: str, note: "Note") -> None:
        self._notes[str(note.kind)] += 1
        logger.warning(f"{file}: {note.text}")

    def __str__(self) -> str:
        said = [f"{self.files} {'file' if self.files == 1 else 'files'} {self._done}", f"{len(self.skipped)} skipped"]
        return ", ".join([*said, *(f"{count} {kind}" for kind, count in sorted(self._notes.items()))])

    def end(self, out: Path | None) -> None:
        """Say it, if it is more than that one file was done; exit with 3 if files were skipped."""
        if out is not None or self.files > 1 or self.skipped or self._notes:
            logger.info(f"{self}" if out is None else f"{out}: {self}")
        exit_if_skipped(len(self.skipped))
