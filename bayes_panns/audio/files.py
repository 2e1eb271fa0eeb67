"""Sound files to mono waveforms at a wanted rate."""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import torchaudio

from bayes_panns.audio.length import fit_length
from bayes_panns.core.errors import AudioError

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".opus"})
"""File name endings, lower case, that a folder is searched for."""

_LARGEST_KERNEL = 2**20
"""The largest product of two reduced rates for which torchaudio resamples: 44,100 to 32,000 Hz has 441 * 320."""


def read(path: str | Path, sample_rate: int) -> torch.Tensor:
    """Read a sound file as one mono waveform.

    Decodes with libsndfile (wav, flac, ogg, mp3 and more, at any rate and channel count), averages the channels and
    resamples, see :func:`resample`. Samples beyond full scale, as lossy files decode to, are kept as they are.

    Args:
        path: The file.
        sample_rate: The rate wanted, in Hz.

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
            samples = sound.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".") or "unknown format"
        raise AudioError(f"{path}: cannot be read as sound ({reason})") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: holds no samples")
    # An mp3's promised length may be an estimate; the other formats write it down.
    whole = 0.9 * promised if path.suffix.lower() == ".mp3" else promised
    if len(samples) < whole or _cut_short(path):
        raise AudioError(f"{path}: the file is truncated")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: holds samples that are not finite numbers")
    waveform = torch.from_numpy(mono)
    return resample(waveform, rate, sample_rate)


def resample(waveform: torch.Tensor, source: int, target: int) -> torch.Tensor:
    """Bring a waveform from one sample rate to another.

    By torchaudio's windowed sinc where the product of the two rates, divided by their greatest common divisor, is
    2^20 or less: its kernel grows with that product. For other pairs, such as 22,254 and 32,000 Hz, by soxr (quality
    HQ), in memory that does not depend on the rates. Below 0.7 of the lower Nyquist frequency the two agree to 0.5 % of
    full scale; above it soxr's filter is the steeper one.

    Args:
        waveform: float32, shape ``(samples,)``.
        source: Its rate, in Hz.
        target: The rate wanted, in Hz.

    Returns:
        float32, shape ``(ceil(samples * target / source),)``.
    """
    if source == target:
        return waveform
    divisor = math.gcd(source, target)
    if (source // divisor) * (target // divisor) <= _LARGEST_KERNEL:
        return _resampler(source, target)(waveform)
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


@lru_cache(maxsize=16)
def _resampler(source: int, target: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(source, target)


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
