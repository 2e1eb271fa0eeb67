"""Files as people have them, and the commands on them."""

import io
import json

import h5py
import numpy as np
import soundfile
from click.testing import CliRunner

from bayes_panns.cli.main import main
from bayes_panns.clips import Store

RATE = 8000
LABELS = ("high", "low", "mid")
SECONDS = 1.5
PACK = ("--seconds", 0.5, "--sample-rate", RATE)


def run(*arguments, code=0, charset="utf-8"):
    result = CliRunner(charset=charset).invoke(main, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def tone(seconds=SECONDS, rate=44100, pitch=700, seed=0):
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return 0.3 * np.sin(2 * np.pi * pitch * time) * np.exp(-2 * (time % 0.5)) + 0.02 * noise


def encoded(form="WAV", subtype=None, wave=None, rate=44100, **options):
    out = io.BytesIO()
    soundfile.write(out, tone() if wave is None else wave, rate, format=form, subtype=subtype, **options)
    return bytearray(out.getvalue())


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(content))
    return path


def sound(path, **options):
    return put(path, encoded(**options))


def ends(net, *files, code=0):
    """Where the last window of each file ends, in seconds, and the messages."""
    result = run("predict", net, *files, "--draws", 0, "--format", "json", code=code)
    return {window["file"]: window["end"] for window in json.loads(result.stdout)["windows"]}, result.stderr


def labels_of(store):
    with h5py.File(store) as file:
        return [each.decode() for each in file["label_names"][:]]


def names_of(store):
    return sorted(Store(store).names)


def table(path, *lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path
