"""What ``doctor`` looks at outside of Python's packages: the device, the decoders and the disk."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch

from bayes_panns.audio import ffmpeg
from bayes_panns.audio.recording import Recording
from bayes_panns.core.choices import Health, Task
from bayes_panns.core.errors import BayesPannsError, reason
from bayes_panns.core.findings import Finding
from bayes_panns.core.processes import cores
from bayes_panns.posterior import Posterior
from bayes_panns.recipes import read_strategy

_RATE, _SECONDS, _PITCH = 44100, 0.5, 1000.0
"""The tone that is written and read again: most codecs know this rate."""

_FORMATS = (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"))
"""What recordings mostly are, of what libsndfile reads."""

_PATIENCE = 60
"""Seconds that ffmpeg may take."""

_SHARE = 0.9
"""The part of a tone's power that must be at its pitch after a lossy codec."""

_WRITTEN = 1 << 25
"""Bytes that are written to measure a disk."""

_ROOM, _SLOW = 1 << 30, 20.0
"""Free bytes below which a disk is noted, and MB/s."""

_NET, _CLIP, _MOST = "mn04", 10.0, 32
"""The network that a device is tried with, the seconds of its clips, and how many are computed at most."""


def examine_machine() -> Iterator[Finding]:
    """Look at the device, the decoders and the disk."""
    yield from _device()
    yield from _decoders()
    yield from _disk()


def speed(posterior: Posterior, draws: int = 0, area: str = "device") -> Finding:
    """How fast a posterior goes through sound, on its device: about a second of work.

    Args:
        posterior: One that takes sound.
        draws: How many are made.
        area: What the finding is a part of.
    """
    clips = 0.1 * torch.randn(_MOST, posterior.width, generator=torch.Generator().manual_seed(0))
    _timed(posterior, clips[:1], draws)
    count = int(min(_MOST, max(1, 0.5 / _timed(posterior, clips[:1], draws))))
    times = count * posterior.clip_seconds / _timed(posterior, clips[:count], draws)
    device = next(iter(posterior.model.buffers())).device
    made = f"{draws} draws" if posterior.draws_made(draws) else "one pass at the mean"
    text = f"{times:,.0f} times real time on {device}: {posterior.net}, {made}, windows of {posterior.clip_seconds:g} s"
    slow = "" if times >= 1 else "take fewer --draws, a longer --hop, a smaller network, or a GPU"
    return Finding(area, "speed", Health.NOTE if slow else Health.OK, text, slow)


def _timed(posterior: Posterior, clips: torch.Tensor, draws: int) -> float:
    """Seconds that the draws of some clips take."""
    start = time.perf_counter()
    for _ in posterior.draws(clips, draws):
        pass
    return time.perf_counter() - start


def _device() -> Iterator[Finding]:
    threads, there = torch.get_num_threads(), cores()
    text = f"{threads} threads of torch on {there} cores{_memory()}"
    few = threads < there and "OMP_NUM_THREADS" in os.environ
    yield Finding(
        "device", "CPU", Health.NOTE if few else Health.OK, text, "unset OMP_NUM_THREADS to use all" if few else ""
    )
    if not torch.cuda.is_available():
        yield Finding("device", "GPU", Health.OK, "torch sees none; the CPU computes")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        text = f"{torch.cuda.get_device_name(index)}, {_bytes(free)} of {_bytes(total)} free"
        tight = free < _ROOM
        todo = "another program fills it: end that, or take --device cpu" if tight else ""
        yield Finding("device", f"GPU {index}", Health.NOTE if tight else Health.OK, text, todo)
    example = Posterior.build(
        net=_NET,
        labels=("a", "b"),
        task=Task.ONE_OF_K,
        sample_rate=32000,
        clip_seconds=_CLIP,
        strategy=read_strategy("det"),
    )
    yield speed(example)


def _memory() -> str:
    """The memory of the machine and what is free of it, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
        return f", {_bytes(found['MemAvailable'])} of {_bytes(found['MemTotal'])} memory free"
    except (OSError, KeyError, ValueError, IndexError):
        return ""


def _decoders() -> Iterator[Finding]:
    known = soundfile.available_formats()
    yield Finding(
        "decoders", "libsndfile", Health.OK, f"{soundfile.__libsndfile_version__}, {len(known)} formats of files"
    )
    tone = (0.5 * np.sin(2 * np.pi * _PITCH * np.arange(round(_SECONDS * _RATE)) / _RATE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for form, codec in _FORMATS:
            name = form if codec.startswith("PCM") or form == "MP3" else f"{form} ({codec.title()})"
            path = Path(folder) / f"{codec}.{form.lower()}"
            try:
                soundfile.write(path, tone, 48000 if codec == "OPUS" else _RATE, format=form, subtype=codec)
            except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
                todo = "update it: pip install --upgrade soundfile; ffmpeg reads such files too"
                text = f"this libsndfile cannot write it to try ({reason(error)})"
                yield Finding("decoders", name, Health.NOTE, text, todo)
                continue
            pitch = _PITCH * 48000 / _RATE if codec == "OPUS" else _PITCH
            yield _read_again(name, path, pitch, "reinstall soundfile: pip install --force-reinstall soundfile")
        yield from _ffmpeg(Path(folder), tone)


def _ffmpeg(folder: Path, tone: np.ndarray) -> Iterator[Finding]:
    program = ffmpeg.program()
    if program is None:
        text = "not found; m4a, WebM, video and other files cannot be read"
        yield Finding("decoders", "ffmpeg", Health.NOTE, text, ffmpeg.MISSING)
        return
    try:
        said = subprocess.run([program, "-version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        text = f"{program} cannot be run ({reason(error)})"
        yield Finding("decoders", "ffmpeg", Health.PROBLEM, text, ffmpeg.MISSING)
        return
    yield Finding("decoders", "ffmpeg", Health.OK, f"{said.split(' Copyright')[0].splitlines()[0]}, {program}")
    plain, coded = folder / "tone.wav", folder / "tone.m4a"
    soundfile.write(plain, tone, _RATE)
    command = [program, "-nostdin", "-loglevel", "error", "-i", str(plain), "-c:a", "aac", str(coded)]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
        failed = (" ".join(made.stderr.split())[:200] or f"exit code {made.returncode}") if made.returncode else ""
    except subprocess.TimeoutExpired:
        failed = f"it has not ended in {_PATIENCE} s"
    if failed:
        text = f"this ffmpeg cannot write it to try ({failed})"
        todo = "install an ffmpeg with the codec aac, if you have such files"
        yield Finding("decoders", "m4a", Health.NOTE, text, todo)
        return
    yield _read_again("m4a", coded, _PITCH, ffmpeg.MISSING)


def _read_again(name: str, path: Path, pitch: float, todo: str) -> Finding:
    """Whether a file of a tone is read as that tone."""
    try:
        with Recording(path, 32000) as recording:
            samples = torch.cat(list(recording)).numpy()
    except BayesPannsError as error:
        return Finding("decoders", name, Health.PROBLEM, reason(error), todo)
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / 32000)
    share = power[np.abs(frequencies - pitch) < 20].sum() / max(power.sum(), np.finfo(float).tiny)
    if not share > _SHARE:
        return Finding("decoders", name, Health.PROBLEM, f"a tone comes back with {share:.0%} of it at its pitch", todo)
    return Finding("decoders", name, Health.OK, "a tone was written and read again")


def _disk() -> Iterator[Finding]:
    try:
        temporary = tempfile.gettempdir()
    except OSError as error:
        todo = "name a folder that can be written with the environment variable TMPDIR"
        yield Finding("disk", "temporary files", Health.PROBLEM, reason(error), todo)
        return
    for name, folder in (("temporary files", Path(temporary)), ("this folder", Path.cwd())):
        free = shutil.disk_usage(folder).free
        tight = free < _ROOM
        text = f"{folder}: {_bytes(free)} free"
        if name == "this folder" and not os.access(folder, os.W_OK):
            yield Finding("disk", name, Health.NOTE, f"{text}, and it cannot be written", "name another with -o")
            continue
        try:
            rate = _write_speed(folder) if free > 4 * _WRITTEN and name == "temporary files" else None
        except OSError as error:
            todo = "name a folder that can be written with the environment variable TMPDIR"
            yield Finding("disk", name, Health.PROBLEM, f"{folder}: cannot be written ({reason(error)})", todo)
            continue
        slow = rate is not None and rate < _SLOW
        text += "" if rate is None else f", written at {rate:,.0f} MB/s"
        todo = "free some space" if tight else "name a faster disk with the environment variable TMPDIR" if slow else ""
        yield Finding("disk", name, Health.NOTE if tight or slow else Health.OK, text, todo)


def _write_speed(folder: Path) -> float:
    """MB/s of a file that is written until it is on the disk."""
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(_WRITTEN // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return _WRITTEN / 1e6 / (time.perf_counter() - start)


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"
