"""The commands that tag sounds."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bayes_panns.cli import options
from bayes_panns.cli.led import led
from bayes_panns.cli.main import LINES, exit_if_skipped, main
from bayes_panns.core.choices import TagFormat
from bayes_panns.core.growing import is_special

if TYPE_CHECKING:
    from bayes_panns.audio.recording import Note
    from bayes_panns.posterior import Predictor
    from bayes_panns.predictions import Draws, FileTags, Skipped

logger = logging.getLogger(__name__)

_LENGTH = options.Finite(min=0.001)
_SECONDS, _SHARE = options.Finite(min=0), options.Finite(min=0, max=1)


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
    "forms",
    multiple=True,
    type=click.Choice(TagFormat.words()),
    help="How to write the tags; repeatable for a results folder [table; in a folder none].",
)
@click.option(
    "-o", "--out", type=click.Path(), help="The file to write, instead of standard output; or a results folder."
)
@click.option("--window", type=_LENGTH, help="Seconds of a window [the clips' length].")
@click.option("--hop", type=_LENGTH, help="Seconds from one window to the next [the window].")
@options.channel
@click.option("--resume", is_flag=True, help="Go on with a results folder, behind the last finished recording.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes that predict into a results folder; under torchrun, so many for each of its own [1].",
)
@click.option("--threshold", type=_SHARE, help="From which probability on a label is heard [as calibrated; 0.5].")
@click.option("--merge-gap", type=_SECONDS, help="Seconds of an interruption that an event bridges [0].")
@click.option("--least", type=_SECONDS, help="Seconds of the shortest event [0].")
@click.option("--event-probability", type=_SHARE, help="Leave out events that are less probable than this [0].")
@click.option("--abstain-above", type=_SECONDS, help="Leave windows of a higher entropy, in nats, to a person.")
@options.device
@options.precision
@options.guide_function
@led
def predict(
    posterior: Path,
    files: tuple[Path, ...],
    others: tuple[Path, ...],
    draws: "Draws | None",
    forms: tuple[str, ...],
    out: str | None,
    window: float | None,
    hop: float | None,
    channel: str,
    resume: bool,
    jobs: int | None,
    threshold: float | None,
    merge_gap: float | None,
    least: float | None,
    event_probability: float | None,
    abstain_above: float | None,
    device: str,
    precision: str,
    guide_function: str | None,
) -> None:
    """Tag sound files, or folders of them, with the uncertainty of each tag.

    A file that is longer than the posterior's clips is cut into windows. Several posteriors share the --draws. The FILE
    - is standard input.

    Tags are written as they come. With -o they go to OUT.part, which takes the place of OUT at the end; after an
    interruption or an error it holds the tags so far, and OUT is as it was. A file that cannot be read is skipped, and
    the exit code is then 3.

    For long recordings and whole disks, -o names a results folder: one that ends in / or is there already, or a name
    without an ending where no --format is given. Several --format, raven, picture, --resume, and audacity for several
    files need one too, and then a name with an ending needs the /. Each recording has its own files there, which are
    whole once they are there: all numbers in records/, and what --format asks for; in a folder, audacity and raven have
    the events. events.csv has all events, with the time of day where the recording tells it, and summary.txt what was
    found, decided, and left to a person. After an interruption --resume goes on behind the last finished recording.

    \b
    Example:
      bayes-panns predict runs/esc10 dog.wav rain.mp3
      bayes-panns predict runs/esc10 recordings/ --format csv -o tags.csv
      bayes-panns predict runs/esc10 disk/ -o results/ --hop 2.5 --merge-gap 5 --format raven --format picture
      bayes-panns predict runs/esc10 disk/ -o results/ --hop 2.5 --merge-gap 5 --resume --jobs 4
      bayes-panns predict runs/esc10 disk/ -o results/ --device cuda --precision bf16
      torchrun --nproc-per-node 8 -m bayes_panns predict runs/esc10 disk/ -o results/ --resume
      ffmpeg -i talk.mkv -f wav - | bayes-panns predict runs/esc10 -
      bayes-panns predict runs/det-0 --with runs/det-1 --with runs/det-2 dog.wav
    """
    from bayes_panns.jobs import ResultsFolder, predict_to
    from bayes_panns.posterior import choose_device, load_all
    from bayes_panns.report import require_format

    place, chosen = None if out is None else Path(out), [TagFormat(form) for form in dict.fromkeys(forms)]
    rules = _rules(threshold, merge_gap, least, event_probability)
    folder = _is_folder(out, chosen, resume, files)
    if folder:
        assert place is not None
        ResultsFolder(place).require(resume=resume)
    else:
        of_folder = (resume, jobs is not None, bool(rules), abstain_above is not None)
        names = ("--resume", "--jobs", "--threshold, --merge-gap, --least and --event-probability", "--abstain-above")
        for name, given in zip(names, of_folder, strict=True):
            if given:
                raise click.UsageError(f"{name}: for a results folder only; name one with -o FOLDER/")
        paths = options.sound_files(files)
        options.require_output(place, paths)
    loaded = load_all(
        [posterior, *others], device=choose_device(device), precision=precision, guide_function=guide_function
    )
    if not folder:
        form = chosen[0] if chosen else TagFormat.TABLE
        _tag(loaded, paths, form, place, draws=draws, window=window, hop=hop, channel=channel)
        return
    assert place is not None
    summary = predict_to(
        loaded,
        options.named_once(files),
        place,
        draws=draws,
        window=window,
        hop=hop,
        channel=channel,
        rules=rules,
        abstain_above=abstain_above,
        formats=[require_format(form) for form in chosen],
        resume=resume,
        jobs=jobs or 1,
        device=device,
        precision=precision,
        guide_function=guide_function,
    )
    logger.info(f"{place}:\n{summary.text()}".rstrip(), extra={LINES: True})
    exit_if_skipped(len(summary.skipped))


def _tag(
    posterior: "Predictor",
    paths: list[Path],
    form: TagFormat,
    out: Path | None,
    *,
    draws: "Draws | None",
    **cutting: Any,
) -> None:
    """Write tags of files to one file, or to standard output."""
    from bayes_panns.predictions import Skipped, none_read, tag_each

    coverage = None if posterior.calibration is None else posterior.calibration.coverage
    summary, empty = _Summary("tagged", len(paths)), True
    with _writer(form, posterior.labels, coverage, out) as write:
        for each in tag_each(posterior, paths, draws, samples=form == TagFormat.PARQUET, **cutting):
            if isinstance(each, Skipped):
                summary.skip(each)
                continue
            write(each)
            empty = False
            if each.complete:
                summary.files += 1
            for note in each.notes:
                summary.note(each.file, note)
        if empty:
            raise none_read(summary.skipped, "tag")
    summary.end(out)


@contextmanager
def _writer(
    form: TagFormat, labels: tuple[str, ...], coverage: float | None, out: Path | None
) -> Iterator[Callable[["FileTags"], None]]:
    """What writes tags to one file, or to standard output."""
    from bayes_panns.report import parquet_tags, tag_text

    if form == TagFormat.PARQUET:
        assert out is not None
        with parquet_tags(out, labels) as write_tags:
            yield write_tags
        return
    text = tag_text(form, labels, coverage=coverage)
    with options.results(out) as write:
        try:
            yield lambda tags: write(text.add(tags))
        finally:
            # What was written before an interruption is a whole document too.
            write(text.end())


def _is_folder(out: str | None, forms: list[TagFormat], resume: bool, files: tuple[Path, ...]) -> bool:
    """Whether ``-o`` names a results folder.

    Raises:
        UsageError: A folder is needed, and none was named; or a folder cannot have a format.
    """
    each = {TagFormat.RAVEN, TagFormat.PICTURE}
    several = len(files) > 1 or any(path.is_dir() for path in files)
    needs = resume or len(forms) > 1 or bool(each & set(forms)) or (TagFormat.AUDACITY in forms and several)
    what = "--resume" if resume else "--format " + " --format ".join(forms)
    if out is None:
        if TagFormat.AUDACITY in forms and len(forms) == 1 and several:
            raise click.UsageError("--format audacity makes a label track of one file; name one, or give -o FOLDER/")
        if needs or TagFormat.PARQUET in forms:
            raise click.UsageError(f"{what}: does not go to standard output; name a results folder with -o FOLDER/")
        return False
    place = Path(out)
    named = out.endswith(("/", os.sep)) or place.is_dir() or (not forms and not place.suffix and not is_special(place))
    if (needs or named) and TagFormat.TABLE in forms:
        raise click.UsageError("--format table: is for the terminal; a results folder has other formats")
    if needs and not named and place.suffix:
        raise click.UsageError(f"{what}: needs a results folder, and {out} is named like a file; write -o {out}/")
    return needs or named


def _rules(
    threshold: float | None, gap: float | None, least: float | None, probability: float | None
) -> dict[str, float]:
    """The rules of events that were given."""
    given = {"threshold": threshold, "gap": gap, "least": least, "probability": probability}
    return {name: value for name, value in given.items() if value is not None}


@main.command()
@click.argument("posterior", type=options.FOLDER)
@click.argument("files", nargs=-1, required=True, type=options.FOLDER, metavar="FILE...")
@click.option("-o", "--out", required=True, type=options.FOLDER, help="The file to write: .npz, .parquet or .csv.")
@click.option("--window", type=_LENGTH, help="Seconds of a window [the clips' length].")
@click.option("--hop", type=_LENGTH, help="Seconds from one window to the next [the window].")
@options.channel
@options.device
@options.precision
@options.guide_function
@led
def embed(
    posterior: Path,
    files: tuple[Path, ...],
    out: Path,
    window: float | None,
    hop: float | None,
    channel: str,
    device: str,
    precision: str,
    guide_function: str | None,
) -> None:
    """Write the embeddings of sound files, folders or stores: what the posterior's last layer takes, a row a window.

    The rows have the file, the window's start and end in seconds, and the embedding. From stores, names, labels, folds
    and recordings come along. `pack embeddings` makes a store of the file. The FILE - is standard input. A file that
    cannot be read is skipped, and the exit code is then 3.

    \b
    Example:
      bayes-panns embed runs/us8k recordings/ -o recordings.npz
      bayes-panns embed runs/us8k stores/esc10.h5 -o esc10.npz --device cuda --precision bf16
      torchrun --nproc-per-node 8 -m bayes_panns embed runs/us8k recordings/ -o recordings.npz
      bayes-panns pack embeddings esc10.npz -o stores/esc10-embedded.h5
    """
    from bayes_panns.jobs import choose_device
    from bayes_panns.jobs import embed as embed_to_file
    from bayes_panns.posterior import load

    paths = options.sound_files(files)
    options.require_output(out, paths)
    loaded = load(posterior, device=choose_device(device), precision=precision, guide_function=guide_function)
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
