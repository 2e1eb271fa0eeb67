"""Predictions as files, by the ending of the file's name."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bayes_panns.core.choices import TagFormat
from bayes_panns.core.errors import SettingError
from bayes_panns.core.files import require_parent, whole_file
from bayes_panns.predictions import FileTags
from bayes_panns.predictions.record_windows import windows_of
from bayes_panns.predictions.records import Record, RecordWriter
from bayes_panns.report.recordings import parquet_tags, require_format
from bayes_panns.report.text.tags import render_tags

if TYPE_CHECKING:
    from bayes_panns.notebook.predictions import Predictions

_ENDINGS = {
    ".csv": TagFormat.CSV,
    ".json": TagFormat.JSON,
    ".parquet": TagFormat.PARQUET,
    ".raven.txt": TagFormat.RAVEN,
    ".txt": TagFormat.AUDACITY,
    ".png": TagFormat.PICTURE,
}
"""The formats by the endings of files; the first that fits."""

_OF_ALL = (TagFormat.CSV, TagFormat.JSON, TagFormat.PARQUET)
"""The formats that hold the tags of several sounds."""


def save(tags: "Predictions", path: Path) -> Path:
    """Write predictions to a file; see :meth:`~bayes_panns.notebook.Predictions.save`."""
    form = next((form for ending, form in _ENDINGS.items() if path.name.lower().endswith(ending)), None)
    if form is None:
        raise SettingError(f"{path}: name a file that ends in {', '.join(_ENDINGS)}")
    require_parent(path)
    if form in (TagFormat.CSV, TagFormat.JSON):
        with whole_file(path) as part:
            part.write_text(render_tags(tags, form), encoding="utf-8")
    elif form == TagFormat.PARQUET:
        with parquet_tags(path, tags.labels) as write:
            for name in tags.files:
                write(_file_tags(tags[name]))
    elif len(tags.files) > 1:
        raise SettingError(f'{path}: is of one sound; save one, such as tags["{tags.files[0]}"]')
    else:
        _save_one(tags, path, form)
    return path


def _save_one(tags: "Predictions", path: Path, form: TagFormat) -> None:
    """Write what holds one sound, by way of the record that ``predict`` writes of it."""
    with tempfile.TemporaryDirectory() as folder, tags.origin.on_disk([tags.files[0]]) as sources:
        record_path = Path(folder) / "record.h5"
        with RecordWriter(record_path, labels=tags.labels, file=tags.files[0], source=Path(sources[0])) as writer:
            windows = windows_of(_file_tags(tags))
            writer.add(replace(windows, low=tags.low, high=tags.high), tags.found or ())
        manifest = {"channel": tags.origin.channel, "sample_rate": tags.sample_rate, "task": tags.uncertainty.task}
        with Record.open(record_path) as record, whole_file(path) as part:
            require_format(form).write(record, part, manifest)


def _file_tags(tags: "Predictions") -> FileTags:
    return FileTags(tags.files[0], tags.windows, tags.uncertainty, tags.sets)
