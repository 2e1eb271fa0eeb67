"""The last layers that are compared: fitted as a user would, to clips or to annotated recordings."""

import csv
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import soundfile

from bayes_panns.clips import pack
from bayes_panns.clips.catalogs import timed
from bayes_panns.core.files import whole_file, whole_folder
from bayes_panns.jobs import fit
from bayes_panns.posterior import Posterior, load
from bayes_panns.recipes import read_run
from benchmarks.foundation_study.embedded import embedded
from benchmarks.hours.embedded import WINDOW
from benchmarks.hours.material import RATE, Material, heard
from benchmarks.hours.mixing import mix

logger = logging.getLogger(__name__)

HEADS: Mapping[str, str] = {
    "background-class": "one-of-k, on single clips; clips of background are a class of their own",
    "negatives": "multi-label, on single clips; clips of background have no label",
    "annotated": "multi-label, on annotated recordings of the kind that is searched; the rest is background",
}
"""What is compared, each with what it is."""

RECORDINGS, QUARTER = 12, 900.0
"""Annotated recordings, and the seconds of each."""


def head(name: str, material: Material, source: str, folder: Path) -> Posterior:
    """A posterior that takes embeddings; one that was fitted before is loaded.

    Args:
        name: One of ``HEADS``.
        material: The clips to fit to.
        source: The network, imported.
        folder: Where the stores and the fits are kept.
    """
    run = folder / name
    if not (run / "posterior").is_dir():
        store = stored(name, material, source, folder)
        recipe = read_run("rotated-head")
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"stores": [store]})})
        fit(recipe, run)
    return load(run)


def stored(name: str, material: Material, source: str, folder: Path) -> str:
    """The store of embeddings that a head is fitted to."""
    made = folder / "embedded" / f"{name}.h5"
    if made.is_file():
        return str(made)
    logger.info(f"{name}: packing")
    sound = folder / f"{name}.h5"
    with whole_folder(folder / f"{name}.sounds") as sounds:
        if name == "annotated":
            _write(sounds / "events.csv", _recorded(material, sounds))
            catalog = timed(sounds / "events.csv", seconds=WINDOW, exhaustive=True)
        else:
            _write(sounds / "clips.csv", _clips(material, "background" if name == "background-class" else ""))
            catalog = timed(sounds / "clips.csv", seconds=WINDOW, context=False, allow_outside=True)
        pack(catalog, sound, sample_rate=RATE)
        for file in sounds.glob("*.wav"):
            file.unlink()
    made.parent.mkdir(parents=True, exist_ok=True)
    found = embedded(str(sound), str(sound), source, made.parent)
    sound.unlink()
    return found


def _clips(material: Material, background: str) -> Iterator[tuple[str, str, float, float, str]]:
    for label, sources in [*material.events.items(), *material.background.items()]:
        for source, files in sources.items():
            for file in files:
                start, end = (each / RATE for each in heard(material.waveform(file)))
                yield str(file), label if label in material.events else background, start, end, source


def _recorded(material: Material, folder: Path) -> Iterator[tuple[str, str, float, float, str]]:
    for number in range(RECORDINGS):
        sound, truth = mix(material, "fit", number, QUARTER)
        file = f"recording-{number:02d}.wav"
        soundfile.write(folder / file, sound, RATE, subtype="PCM_16")
        yield from ((file, event.label, event.onset, event.offset, file) for event in truth)


def _write(path: Path, rows: Iterator[tuple[str, str, float, float, str]]) -> None:
    with whole_file(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "labels", "start", "end", "source"])
        writer.writerows((name, labels, repr(start), repr(end), source) for name, labels, start, end, source in rows)
