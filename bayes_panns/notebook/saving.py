"""Predictions as files, by the ending of the file's name."""

from pathlib import Path

from bayes_panns.core.choices import TagFormat
from bayes_panns.core.errors import SettingError
from bayes_panns.core.files import require_parent, whole_file
from bayes_panns.notebook.predictions import Predictions
from bayes_panns.report.text.tags import render_tags

_TEXTS = {".csv": TagFormat.CSV, ".json": TagFormat.JSON, ".txt": TagFormat.AUDACITY}

_PICTURES = (".png", ".svg", ".pdf")


def save(tags: Predictions, path: Path) -> Path:
    """Write predictions to a file; see :meth:`~bayes_panns.notebook.Predictions.save`."""
    ending = path.suffix.lower()
    require_parent(path)
    if ending in _TEXTS:
        if _TEXTS[ending] == TagFormat.AUDACITY and len(tags.files) > 1:
            raise SettingError(f'{path}: an Audacity track is of one sound; save one, such as tags["{tags.files[0]}"]')
        text = render_tags(tags, _TEXTS[ending])
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8")
    elif ending in _PICTURES:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4), layout="constrained")
        tags.plot(figure.add_subplot())
        with whole_file(path) as part:
            figure.savefig(part, format=ending[1:], dpi=150)
    else:
        raise SettingError(f"{path}: name a file that ends in {', '.join([*_TEXTS, *_PICTURES])}")
    return path
