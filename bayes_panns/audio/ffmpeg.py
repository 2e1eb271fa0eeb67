"""Sound that libsndfile cannot read, decoded by ffmpeg through a pipe, if ffmpeg is installed."""

import os
import re
import shutil
import subprocess
import threading
from collections import deque
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bayes_panns.audio.decoders import Refused, dropped, require_sane
from bayes_panns.audio.views import Source
from bayes_panns.core.text import printable

SUFFIXES = frozenset(
    {
        ".m4a",
        ".m4b",
        ".m4r",
        ".mp4",
        ".m4v",
        ".mov",
        ".aac",
        ".webm",
        ".weba",
        ".mkv",
        ".mka",
        ".wma",
        ".wmv",
        ".asf",
        ".3gp",
        ".3g2",
        ".amr",
        ".ac3",
        ".eac3",
        ".dts",
        ".flv",
        ".rm",
        ".ra",
        ".wv",
        ".ape",
        ".tta",
        ".tak",
        ".mpc",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".m2ts",
        ".mts",
        ".dsf",
        ".dff",
        ".ogv",
        ".spx",
    }
)
"""The usual endings of what ffmpeg reads and libsndfile does not, lower case."""

MISSING = "install ffmpeg, or pip install 'bayes-panns[ffmpeg]'"
"""What to do where there is no ffmpeg."""

_PATIENCE = 60.0
"""Seconds without a word from ffmpeg after which it is stopped."""

_ALLOCATED = 1 << 28
"""Bytes that ffmpeg may ask for at a time."""

_LINES, _LINE = 50, 500


@lru_cache(maxsize=1)
def _packaged() -> str | None:
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]
    except ImportError:
        return None
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return None


def program() -> str | None:
    """The path of ffmpeg: the one on the PATH, or that of the package ``imageio-ffmpeg``; None if there is neither."""
    return shutil.which("ffmpeg") or _packaged()


class Ffmpeg:
    """ffmpeg as a decoder of the first sound track of a file.

    A playlist or another file that names further files is never followed: only the named demuxers are used, none of
    which reads such lists, and only the file itself may be opened. The file is handed over as a descriptor, so that its
    name cannot be taken for an option or an address.

    Args:
        source: The file.
        demuxers: Names of ffmpeg's demuxers that may be used, joined by commas.
        name: The kind of file, for messages.
        damage: What is already known to be wrong with it, see :class:`~bayes_panns.audio.decoders.Decoder`.

    Raises:
        Refused: There is no ffmpeg, or it cannot decode the file.
    """

    length: int | None = None
    share = 1.0

    def __init__(self, source: Source, demuxers: str, name: str, damage: str = ""):
        path = program()
        if path is None:
            raise Refused(f"is {name}, which needs ffmpeg; {MISSING}")
        os.lseek(source.fileno, 0, os.SEEK_SET)
        descriptor = os.name != "nt"
        url = f"file:/dev/fd/{source.fileno}" if descriptor else f"file:{source.path.absolute()}"
        limits = ["-max_alloc", str(_ALLOCATED), "-protocol_whitelist", "file", "-format_whitelist", demuxers]
        wanted = ["-map", "0:a:0", "-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
        quiet = ["-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info", "-threads", "1"]
        try:
            self._process = subprocess.Popen(
                [path, *quiet, *limits, "-i", url, *wanted],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(source.fileno,) if descriptor else (),
            )
        except OSError as error:
            raise Refused(f"is {name}, and ffmpeg cannot be started ({error.strerror})") from error
        self.promised: int | None = None
        self.failure, self._name, self._ended = damage, name, False
        self._said: deque[str] = deque(maxlen=_LINES)
        self._duration: float | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.rate, self.channels = self._head()
            require_sane(self.rate, self.channels)
        except BaseException:
            self.close()
            raise

    def read(self, block: NDArray[np.float32]) -> int:
        """See :class:`~bayes_panns.audio.decoders.Decoder`."""
        if self._ended or not len(block):
            return 0
        width = 4 * self.channels
        data = self._bytes(len(block) * width)
        got = len(data) // width
        block[:got] = np.frombuffer(data[: got * width], dtype=">f4").reshape(got, self.channels)
        if got < len(block):
            self._ended = True
            status = self._process.wait()
            self._listener.join()
            if status or self._error():
                self.failure = f"cannot be decoded further ({self._error() or f'ffmpeg ended with {status}'})"
                self.promised = None if self._duration is None else round(self._duration * self.rate)
        return got

    def skip(self, samples: int) -> int:
        """See :class:`~bayes_panns.audio.decoders.Decoder`."""
        return dropped(self, samples)

    def close(self) -> None:
        """Stop ffmpeg, if it still runs, and wait for its end."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _head(self) -> tuple[int, int]:
        """The rate and channels, from the header of the AU file that ffmpeg writes."""
        head = self._bytes(24)
        if len(head) < 24 or head[:4] != b".snd":
            self._process.wait()
            self._listener.join()
            raise Refused(f"is {self._name}, which ffmpeg cannot read ({self._error() or 'no sound in it'})")
        start, _, _, rate, channels = (int.from_bytes(head[at : at + 4], "big") for at in range(4, 24, 4))
        self._bytes(start - 24)
        return rate, channels

    def _bytes(self, length: int) -> bytes:
        """Up to ``length`` bytes of ffmpeg's output; fewer only at its end."""
        assert self._process.stdout is not None
        watch = threading.Timer(_PATIENCE, self._process.kill)
        watch.daemon = True
        watch.start()
        try:
            return self._process.stdout.read(length)
        finally:
            watch.cancel()

    def _listen(self) -> None:
        """Keep what ffmpeg says, so that it never waits for someone to listen."""
        assert self._process.stderr is not None
        while line := self._process.stderr.readline(_LINE):
            text = printable(line.decode("utf-8", "replace").strip()).strip()
            if found := re.match(r"\[info\]\s+Duration: (\d+):(\d\d):(\d\d\.\d+)", text):
                hours, minutes, seconds = found.groups()
                self._duration = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
            if "[error]" in text or "[fatal]" in text:
                self._said.append(text)

    def _error(self) -> str:
        """The first thing that went wrong, in ffmpeg's words; empty if nothing did."""
        text = re.sub(r"\[[^]]*\] ?", "", self._said[0]).strip().rstrip(".") if self._said else ""
        return "it has no sound track" if "matches no streams" in text else text
