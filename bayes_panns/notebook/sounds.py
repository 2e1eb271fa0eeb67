"""What can be tagged from Python: files, folders, and sounds in memory."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TypeAlias

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.audio.walking import find
from bayes_panns.core.errors import AudioError, SettingError
from bayes_panns.core.text import STDIN, printable

Array: TypeAlias = NDArray[np.generic] | Tensor

Sounds: TypeAlias = str | Path | Array | Sequence[str | Path] | Sequence[Array] | Mapping[str, Array]
"""A file, a folder or several of them; or the samples of one sound, of several, or of several with names."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """A sound in memory.

    Attributes:
        samples: float32, shape ``(samples,)``.
        rate: In Hz.
    """

    samples: NDArray[np.float32]
    rate: int

    def write(self, path: Path) -> None:
        """Write it to a WAV file that has the same numbers."""
        soundfile.write(path, self.samples, self.rate, subtype="FLOAT", format="WAV")


@dataclass(frozen=True, eq=False)
class Origin:
    """Where sounds come from.

    Attributes:
        files: Names or paths, in order.
        memory: The sounds that are in memory, by name; no file has their names.
        channel: Which channel of the files.
    """

    files: tuple[str | Path, ...]
    memory: Mapping[str, InMemory]
    channel: str = "mix"

    @contextmanager
    def on_disk(self, names: Sequence[str | Path]) -> Iterator[list[str | Path]]:
        """Paths to read some of the sounds from, in this block: those in memory are in temporary files."""
        with tempfile.TemporaryDirectory() as folder:
            paths = list[str | Path]()
            for number, name in enumerate(names):
                kept = self.memory.get(str(name))
                paths.append(name if kept is None else Path(folder) / f"{number}.wav")
                if kept is not None:
                    kept.write(Path(paths[-1]))
            yield paths


def origin(sounds: Sounds, rate: int | None, channel: str = "mix") -> Origin:
    """Find out what was given.

    Args:
        sounds: What to tag.
        rate: The sample rate of sounds in memory, in Hz.
        channel: Which channel of files.

    Raises:
        SettingError: There is nothing, a sound in memory has no rate, one that is no whole number, or more than one
            axis, or a rate is given for files.
        AudioError: A folder holds no sound file; or a sound in memory has no samples.
    """
    if isinstance(sounds, np.ndarray | Tensor):
        return _of_memory({"sound": sounds}, rate, channel)
    if isinstance(sounds, Mapping):
        return _of_memory(sounds, rate, channel)
    if not isinstance(sounds, str | Path | Iterable):
        raise SettingError(f"{type(sounds).__name__}: is no sound; give files, folders, or arrays with their rate")
    given = [sounds] if isinstance(sounds, str | Path) else list(sounds)
    if given and all(isinstance(each, np.ndarray | Tensor) for each in given):
        named = {f"sound {number}": each for number, each in enumerate(given, start=1)}
        return _of_memory(named, rate, channel)  # type: ignore[arg-type]
    files = list[str | Path]()
    for each in given:
        if not isinstance(each, str | Path):
            raise SettingError(f"{type(each).__name__}: is no sound; give files, folders, or arrays with their rate")
        files += find(each) if str(each) != STDIN and Path(each).is_dir() else [each]
    if not files:
        raise SettingError("nothing to tag: give a file, a folder, or an array with its rate")
    if rate is not None:
        raise SettingError("rate is for sounds in memory; files have their own")
    return Origin(tuple(files), {}, channel)


def _of_memory(named: Mapping[str, Array], rate: int | None, channel: str) -> Origin:
    if rate is None:
        raise SettingError("a sound in memory needs its sample rate: predict(samples, rate=44100)")
    # Other packages give the rate as a float, too.
    if not (isinstance(rate, Real) and 1 <= rate < 2**31 and rate == int(rate)):
        raise SettingError(f"rate {rate!r}: expected a whole number of Hz, such as 44100")
    rate = int(rate)
    return Origin(tuple(named), {name: InMemory(_samples(name, each), rate) for name, each in named.items()}, channel)


def _samples(name: str, values: Array) -> NDArray[np.float32]:
    """Samples as float32; whole numbers are brought to full scale 1.

    Raises:
        SettingError: They have another number of axes than 1, are no real numbers, or whole ones of 64 bits.
        AudioError: There are none.
    """
    if isinstance(values, torch.Tensor):
        # NumPy has no bfloat16.
        values = (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()
    array = np.asarray(values)
    shown = printable(name)
    if array.ndim != 1:
        raise SettingError(
            f"{shown}: has shape {array.shape}, and a sound in memory has one axis; take a channel or the mean of "
            "several, and give several sounds as a list"
        )
    if array.dtype.kind not in "fiu":
        raise SettingError(f"{shown}: holds {array.dtype}, and samples are real numbers")
    if not len(array):
        raise AudioError(f"{shown}: holds no samples")
    if array.dtype.kind in "iu" and array.dtype.itemsize > 4:
        # Samples of 16 bits in such an array would be as good as silent.
        raise SettingError(
            f"{shown}: holds {array.dtype}, whose full scale is unknown; give it as int16 or int32, or as floats "
            "from -1 to 1"
        )
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    largest = float(2 ** (8 * array.dtype.itemsize - 1))
    middle = largest if array.dtype.kind == "u" else 0.0
    return ((array.astype(np.float64) - middle) / largest).astype(np.float32)
