"""Sound files to mono waveforms at a wanted rate."""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bayes_panns.audio.length import fit_length
from bayes_panns.core.errors import AudioError

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".opus"})
"""File name endings, lower case, that a folder is searched for."""

_LARGEST_KERNEL = 2**20
"""The largest product of two reduced rates for which torchaudio resamples: 44,100 to 32,000 Hz has 441 * 320."""

_BLOCK = 1 << 17
"""Samples that are read or resampled at a time: they stay in cache."""

_PERIOD = 256
"""Samples of a waveform whose phases are computed by one set of matrices, at least."""

_PHASES = 32
"""Neighbouring samples of the wanted rate that are computed together."""


def read(path: str | Path, sample_rate: int, *, exact: bool = True) -> Tensor:
    """Read a sound file as one mono waveform.

    Decodes with libsndfile (wav, flac, ogg, mp3 and more, at any rate and channel count), averages the channels and
    resamples, see :func:`resample`. Samples beyond full scale, as lossy files decode to, are kept as they are.

    Args:
        path: The file.
        sample_rate: The rate wanted, in Hz.
        exact: As for :func:`resample`.

    Returns:
        float32 samples, shape ``(samples,)``, nominally in [-1, 1].

    Raises:
        AudioError: The file is missing, empty, unreadable, truncated, of zero length, or holds NaN or infinite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty")
    try:
        with soundfile.SoundFile(path) as sound:
            rate, promised = sound.samplerate, sound.frames
            mono = _mono(sound)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".") or "unknown format"
        raise AudioError(f"{path}: cannot be read as sound ({reason})") from error
    if len(mono) == 0:
        raise AudioError(f"{path}: holds no samples")
    # An mp3's promised length may be an estimate; the other formats write it down.
    whole = 0.9 * promised if path.suffix.lower() == ".mp3" else promised
    if len(mono) < whole or _cut_short(path):
        raise AudioError(f"{path}: the file is truncated")
    if not all(np.isfinite(mono[start : start + _BLOCK]).all() for start in range(0, len(mono), _BLOCK)):
        raise AudioError(f"{path}: holds samples that are not finite numbers")
    return resample(torch.from_numpy(mono), rate, sample_rate, exact=exact)


def _mono(sound: soundfile.SoundFile) -> NDArray[np.float32]:
    """All samples of an open file, the channels averaged."""
    if sound.channels == 1:
        return sound.read(dtype="float32")
    # Block by block: all channels of a long file would take as many times its memory.
    mono = np.empty(sound.frames, dtype=np.float32)
    done = 0
    while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
        np.mean(block, axis=1, out=mono[done : done + len(block)])
        done += len(block)
    return mono[:done]


def resample(waveform: Tensor, source: int, target: int, *, exact: bool = True) -> Tensor:
    """Bring a waveform from one sample rate to another.

    By torchaudio's windowed sinc where the product of the two rates, divided by their greatest common divisor, is
    2^20 or less: its kernel grows with that product. For other pairs, such as 22,254 and 32,000 Hz, by soxr (quality
    HQ), in memory that does not depend on the rates. Below 0.7 of the lower Nyquist frequency the two agree to 0.5 % of
    full scale; above it soxr's filter is the steeper one.

    Args:
        waveform: float32, shape ``(samples,)``.
        source: Its rate, in Hz.
        target: The rate wanted, in Hz.
        exact: Whether to be torchaudio's result to the bit, on which the digests of packed clips depend. Otherwise it
            is that up to rounding, in a fifth of the time and in less memory.

    Returns:
        float32, shape ``(ceil(samples * target / source),)``.
    """
    if source == target:
        return waveform
    divisor = math.gcd(source, target)
    if (source // divisor) * (target // divisor) <= _LARGEST_KERNEL:
        return _resampler(source // divisor, target // divisor, exact)(waveform)
    resampled = torch.from_numpy(soxr.resample(waveform.numpy(), source, target, quality="HQ"))
    # soxr may give a sample less.
    return fit_length(resampled, -(-len(waveform) * target // source))


def find(folder: str | Path) -> list[Path]:
    """Every sound file below ``folder`` (by its ending), sorted by path; hidden ones are left out.

    Raises:
        AudioError: ``folder`` is not a folder, or holds no sound file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise AudioError(f"{folder}: holds no sound file ({', '.join(sorted(SUFFIXES))})")
    return found


class _Sinc:
    """torchaudio's windowed sinc, without the products with zero.

    torchaudio convolves with a kernel for each of ``target`` phases, each as long as ``source`` samples and more; but
    all of a phase except some 20 taps is 0. Here neighbouring phases are one small matrix product.

    Args:
        source: The rate of the waveform, divided by the greatest common divisor of the two.
        target: The rate wanted, likewise.
    """

    def __init__(self, source: int, target: int):
        made = torchaudio.transforms.Resample(source, target)
        # Several periods as one, where they are short: rows of samples that overlap would be copied.
        periods = -(-_PERIOD // source)
        self.source, self.target, self.width = periods * source, periods * target, made.width
        kernel = torch.cat(
            [F.pad(made.kernel[:, 0], (each * source, (periods - 1 - each) * source)) for each in range(periods)]
        ).T
        self.taps, self.ratio = len(kernel), (source, target)
        self.bands = []
        for start in range(0, self.target, _PHASES):
            phases = slice(start, min(start + _PHASES, self.target))
            used = (kernel[:, phases].abs() > 1e-12).any(dim=1).nonzero().flatten().tolist()
            taps = slice(used[0], used[-1] + 1)
            self.bands.append((phases, taps, kernel[taps, phases].contiguous()))

    def __call__(self, waveform: Tensor) -> Tensor:
        """The waveform at the wanted rate."""
        length = -(-self.ratio[1] * len(waveform) // self.ratio[0])
        resampled = waveform.new_empty(-(-length // self.target), self.target)
        few = max(1, _BLOCK // self.source)
        for block, start in zip(resampled.split(few), range(0, len(resampled), few), strict=True):
            first, last = start * self.source - self.width, (start + len(block) - 1) * self.source + self.taps
            last -= self.width
            piece = waveform[max(first, 0) : max(last, 0)]
            piece = F.pad(piece, (max(-first, 0), last - first - max(-first, 0) - len(piece)))
            rows = piece.as_strided((len(block), self.taps), (self.source, 1))
            for phases, taps, kernel in self.bands:
                torch.mm(rows[:, taps], kernel, out=block[:, phases])
        return resampled.view(-1)[:length]


@lru_cache(maxsize=16)
def _resampler(source: int, target: int, exact: bool) -> Callable[[Tensor], Tensor]:
    return torchaudio.transforms.Resample(source, target) if exact else _Sinc(source, target)


def _cut_short(path: Path) -> bool:
    """Whether a RIFF file ends before the length its header states; libsndfile trims such a file silently."""
    with path.open("rb") as file:
        header = file.read(12)
        if header[:4] != b"RIFF" or header[8:] != b"WAVE":
            return False
        size = path.stat().st_size
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                # A streaming writer leaves the length at its maximum, or 0: then there is no promise to break.
                return 0 < length < 0xFFFFFF00 and file.tell() + length > size
            file.seek(length + length % 2, 1)
    return False
