"""A table of the windows to label, and a page that plays them and takes labels by key or touch.

The page is self-contained: its content security policy forbids every request. It keeps the labels in the browser's
local storage until they are downloaded as ``labels.csv``, which ``pack`` takes.
"""

import base64
import csv
import hashlib
import io
import json
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bayes_panns import __version__
from bayes_panns.core import progress
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import OutputError
from bayes_panns.core.files import require_folder, whole_folder
from bayes_panns.core.strict_json import strict
from bayes_panns.core.text import cell, readable
from bayes_panns.jobs import Acquired, Pick, read_pick
from bayes_panns.posterior import Posterior
from bayes_panns.report.formatting import exact
from bayes_panns.report.media import sound, spectrogram
from bayes_panns.report.page.look import shared_style

GUESSES = 9
"""How many of the most probable labels a clip shows; as many as there are digits."""

_COLUMNS = 3
"""How many of them the table has."""

_SEPARATORS = ";|~^"


def write_labelling(
    acquired: Acquired, posterior: Posterior, out: Path, *, source: Path, channel: str = "mix"
) -> list[Path]:
    """Write ``chosen.csv`` and ``label.html`` to a new folder, whole or not at all.

    Args:
        acquired: What to label.
        posterior: Whose guesses it holds.
        out: The folder; it may be there if it is empty.
        source: Where the posterior is, for the commands that the page shows.
        channel: The channel of the files that is heard.

    Returns:
        The two files.

    Raises:
        OutputError: The folder holds something.
        AudioError: A file cannot be read any more.
    """
    require_new(out)
    with whole_folder(out) as fresh:
        (fresh / "chosen.csv").write_text(_table(acquired, posterior), encoding="utf-8", newline="")
        page = render_labelling(acquired, posterior, source=source, channel=channel)
        (fresh / "label.html").write_text(readable(page), encoding="utf-8")
    return [out / "chosen.csv", out / "label.html"]


def require_new(out: Path) -> None:
    """Check, before any work, that a folder can be written and holds nothing.

    Raises:
        OutputError: It cannot, or does.
    """
    require_folder(out)
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: is there already; name another folder with -o, such as {out}-2")


def render_labelling(acquired: Acquired, posterior: Posterior, *, source: Path, channel: str = "mix") -> str:
    """The page, as HTML; arguments as for :func:`write_labelling`."""
    separator = next(sign for sign in [*_SEPARATORS, "\t"] if not any(sign in name for name in posterior.labels))
    timed = not all(pick.whole for pick in acquired.picks)
    table = acquired.folder / "labels.csv"
    clips = []
    with progress.task("drawing", total=len(acquired.picks), unit="clip") as bar:
        for clip in _clips(acquired, posterior, channel):
            clips.append(clip)
            bar.advance()
    data: dict[str, Any] = {
        "task": str(posterior.task),
        "labels": [readable(label) for label in posterior.labels],
        "separator": separator,
        "timed": timed,
        "clips": clips,
        "pack": _command("pack", "folder", table, "-o", "new.h5", "--seconds", f"{posterior.clip_seconds:g}")
        + ("" if separator == ";" else f" --separator {shlex.quote(separator)}"),
        "known": f" --labels {_quoted(source)}",
        "finetune": _command("finetune", "continue", "--from", source, "--data", "new.h5", "-o", f"{source}-2"),
    }
    data["key"] = hashlib.sha256(json.dumps([data["labels"], _table(acquired, posterior)]).encode()).hexdigest()[:16]
    # Text from data could close the element that holds it.
    text = json.dumps(strict(data)).replace("<", "\\u003c")
    script = _read("label.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_read("label.html.j2")).render(
        title=f"{len(clips)} clips to label",
        strategy=acquired.strategy,
        summary=acquired.strategy.summary,
        folder=str(acquired.folder),
        source=str(source),
        several=posterior.task == Task.MULTI_LABEL,
        data=Markup(text),
        style=Markup(shared_style() + _read("label.css")),
        script=Markup(script),
        script_digest=digest,
        version=__version__,
    )


def _clips(acquired: Acquired, posterior: Posterior, channel: str) -> Iterator[dict[str, Any]]:
    """What the page holds of each clip."""
    found = acquired.uncertainty
    for row, pick in enumerate(acquired.picks):
        waveform = read_pick(acquired.folder, pick, posterior.sample_rate, channel).numpy()
        yield {
            "file": readable(pick.file),
            "start": pick.start,
            "end": pick.end,
            "whole": pick.whole,
            "name": _shown(pick),
            "guess": [
                {
                    "label": int(label),
                    "mean": round(float(found.probability[row, label]), 4),
                    "deviation": round(float(np.sqrt(found.epistemic[row, label])), 4),
                }
                for label in _order(found.probability[row])[:GUESSES]
            ],
            "entropy": round(float(found.entropy[row]), 3),
            "disagreement": round(float(found.mutual_information[row]), 3),
            "picture": spectrogram(posterior.front_end, waveform).uri,
            "sound": sound(waveform, posterior.sample_rate).uri,
            "top": exact(posterior.front_end.settings.fmax / 1000),
        }


def _shown(pick: Pick) -> str:
    return readable(pick.file) if pick.whole else f"{readable(pick.file)}, {pick.start:.1f} to {pick.end:.1f} s"


def _order(probability: np.ndarray) -> list[int]:
    order: list[int] = np.argsort(-probability, kind="stable").tolist()
    return order


def _table(acquired: Acquired, posterior: Posterior) -> str:
    """``chosen.csv``: a row a window, in the order in which they were chosen."""
    found, text = acquired.uncertainty, io.StringIO()
    count = min(_COLUMNS, len(posterior.labels))
    writer = csv.writer(text)
    guesses = [f"{name}{number}" for number in range(1, count + 1) for name in ("label", "probability")]
    writer.writerow(["file", "start", "end", "strategy", "score", "entropy", "mutual_information", *guesses])
    for row, pick in enumerate(acquired.picks):
        probability = found.probability[row]
        numbers = (pick.score, found.entropy[row], found.mutual_information[row])
        best = [
            value
            for label in _order(probability)[:count]
            for value in (cell(posterior.labels[label]), f"{probability[label]:.4f}")
        ]
        where = (cell(pick.file), f"{pick.start:.3f}", f"{pick.end:.3f}")
        writer.writerow([*where, acquired.strategy, *(f"{number:.4f}" for number in numbers), *best])
    return text.getvalue()


def _command(*words: object) -> str:
    return " ".join(["bayes-panns", *map(_quoted, words)])


def _quoted(word: object) -> str:
    return shlex.quote(readable(str(word)))


def _read(name: str) -> str:
    return resources.files("bayes_panns.report.labelling").joinpath(name).read_text(encoding="utf-8")
