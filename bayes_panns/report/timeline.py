"""A recording as a picture: its spectrogram, its events, the most heard labels with their bands, its uncertainty."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.audio.recording import Recording
from bayes_panns.core.errors import OF_ONE_FILE
from bayes_panns.core.text import printable
from bayes_panns.metrics.plotting import FAINT, INK, PALETTE
from bayes_panns.predictions.events import Event
from bayes_panns.predictions.records import Record

_ROW, _LONG_ROW, _MOST_ROWS = 600.0, 3600.0, 24
"""Seconds of a row: of a recording of up to an hour, of a longer one; and the most rows: then they are longer."""

_LABELS = len(PALETTE) - 1
"""How many labels have a line; the last colour is grey."""

_COLUMNS = 1400
"""Pixels of a row."""

_WIDTH, _DPI = 16.0, 120
_LEFT, _RIGHT = 1.15, 0.25
_SPECTROGRAM, _LINES, _LANE, _STRIP = 1.05, 0.95, 0.26, 0.12
_GAP, _BETWEEN, _TOP = 0.05, 0.42, 0.85
"""Inches."""

_RATE, _MELS, _TRANSFORM = 32000, 96, 1024
_LOWEST = 50.0
"""Hz, the lowest frequency of a spectrogram."""

_RANGE = 60.0
"""dB from the loudest to the darkest value of a spectrogram."""

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
"""Seconds between times on an axis."""

_WINDOWS = 1024
"""Windows of a record that are read together."""


@dataclass(frozen=True)
class Picture:
    """The timeline of a recording as PNG; :func:`timeline` draws it."""

    ending: str = ".png"

    def write(self, record: Record, path: Path, manifest: Mapping[str, Any]) -> None:
        """See :class:`~bayes_panns.jobs.recording_results.RecordingFormat`."""
        figure = timeline(record, channel=manifest["channel"])
        figure.savefig(path, format="png", dpi=_DPI)


def timeline(record: Record, *, channel: str = "mix") -> Figure:
    """A figure of a recording, in rows of 10 minutes; in rows of an hour if it is longer than an hour.

    Each row has the spectrogram, the events, the probabilities of the labels that are heard most, each with the central
    90 % of its draws, and two strips: the aleatoric part of the entropy, and the epistemic one, which is the mutual
    information between label and weights. Windows out of distribution, or left to a person, are marked below.

    Args:
        record: The recording's record; the recording itself is read again for the spectrogram, if it is still there.
        channel: The channel that was predicted.
    """
    rows = _rows(record.seconds)
    events, columns = record.events(), _columns(record, rows)
    shown = _most_heard(record, events, columns)
    mels, sound = _spectrogram(record.path, rows, channel)
    marked = any(row.outside.any() or row.left.any() for row in columns)
    height = _SPECTROGRAM + _LANE + _LINES + 2 * _STRIP + (_STRIP if marked else 0) + 4 * _GAP
    total = _TOP + len(rows) * (height + _BETWEEN)
    figure = Figure(figsize=(_WIDTH, total))
    _headline(figure, record, shown, total)
    most = [max(1e-3, max(float(values.max(initial=0)) for values in kind)) for kind in _parts_of_entropy(columns)]
    for number, (span, row) in enumerate(zip(rows, columns, strict=True)):
        panels = _Panels(figure, total, _TOP + number * (height + _BETWEEN), span)
        _draw_spectrogram(panels.below(_SPECTROGRAM), mels[number], span, sound)
        _draw_events(panels.below(_LANE), [each for each in events if _within(each, span)], record, shown)
        _draw_lines(panels.below(_LINES), row, record, shown)
        _draw_strip(panels.below(_STRIP), row, row.entropy - row.mutual_information, "aleatoric", most[0])
        _draw_strip(panels.below(_STRIP), row, row.mutual_information, "epistemic", most[1])
        if marked:
            _draw_marks(panels.below(_STRIP), row)
        panels.times(record.recorded_at)
    return figure


@dataclass
class _Row:
    """The windows of a row, at most one a pixel; of several the one with the most probable label."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    probability: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    entropy: NDArray[np.float32]
    mutual_information: NDArray[np.float32]
    outside: NDArray[np.bool_]
    left: NDArray[np.bool_]


_FIELDS = tuple(field.name for field in fields(_Row))


def _rows(seconds: float) -> list[tuple[float, float]]:
    """From when to when each row goes, in seconds."""
    if seconds <= _ROW:
        return [(0.0, max(seconds, 1e-3))]
    length = _ROW if seconds <= _LONG_ROW else _LONG_ROW * math.ceil(seconds / (_LONG_ROW * _MOST_ROWS))
    # A rest of a few windows makes no row of its own.
    count = max(1, math.ceil(seconds / length - 0.02))
    return [
        (index * length, max(seconds, count * length) if index == count - 1 else (index + 1) * length)
        for index in range(count)
    ]


def _columns(record: Record, rows: Sequence[tuple[float, float]]) -> list[_Row]:
    kept: list[list[Any]] = [[] for _ in rows]
    last: tuple[int, int] | None = None
    for first in range(0, len(record), _WINDOWS):
        windows = record.windows(first, first + _WINDOWS)
        loudest = windows.probability.max(axis=1) if windows.probability.size else np.zeros(len(windows))
        for index in range(len(windows)):
            middle = (windows.start[index] + windows.end[index]) / 2
            row = min(len(rows) - 1, int(middle // (rows[0][1] - rows[0][0])))
            place = row, int((middle - rows[row][0]) / (rows[row][1] - rows[row][0]) * _COLUMNS)
            found = (loudest[index], *(getattr(windows, name)[index] for name in _FIELDS))
            if place == last and kept[row]:
                if found[0] > kept[row][-1][0]:
                    kept[row][-1] = found
            else:
                kept[row].append(found)
            last = place
    return [_stacked(row, len(record.labels)) for row in kept]


def _stacked(windows: Sequence[tuple[Any, ...]], labels: int) -> _Row:
    columns: list[Any] = [np.stack(values) for values in list(zip(*windows, strict=True))[1:]]
    if not windows:
        columns = [np.zeros((0, labels) if name in ("probability", "low", "high") else 0) for name in _FIELDS]
        columns[-2:] = [column.astype(bool) for column in columns[-2:]]
    return _Row(*columns)


def _most_heard(record: Record, events: Sequence[Event], rows: Sequence[_Row]) -> list[int]:
    """The labels to show: those of the longest events, and then those of the highest probabilities."""
    heard = np.zeros(len(record.labels))
    number = {label: index for index, label in enumerate(record.labels)}
    for event in events:
        heard[number[event.label]] += event.offset - event.onset
    peak = np.max([row.probability.max(axis=0, initial=0) for row in rows], axis=0) if record.labels else heard
    order = np.lexsort((np.arange(len(heard)), -peak, -heard))[:_LABELS]
    # Not a label that is nowhere heard, beside those that are.
    return [int(k) for position, k in enumerate(order) if position == 0 or heard[k] or peak[k] >= 0.1]


def _parts_of_entropy(rows: Sequence[_Row]) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    return [row.entropy - row.mutual_information for row in rows], [row.mutual_information for row in rows]


def _spectrogram(
    path: Path, rows: Sequence[tuple[float, float]], channel: str
) -> tuple[list[NDArray[np.float32]], bool]:
    """Mels in dB below the loudest, ``(mels, pixels)`` for each row; and whether the recording could be read."""
    power = np.zeros((len(rows) * _COLUMNS, _MELS), dtype=np.float32)
    length = rows[0][1] - rows[0][0]
    try:
        for first, mels in _mels(path, channel):
            seconds = (first + np.arange(len(mels))) * (_TRANSFORM // 2) / _RATE
            pixel = (seconds / length * _COLUMNS).astype(np.intp).clip(max=len(power) - 1)
            there, starts = np.unique(pixel, return_index=True)
            power[there] = np.maximum(power[there], np.maximum.reduceat(mels.numpy(), starts))
        sound = True
    except OF_ONE_FILE:
        sound = False
    # A short recording may have fewer frames than pixels.
    used = power.any(axis=1)
    power = power[np.maximum.accumulate(np.where(used, np.arange(len(power)), 0))]
    level = 10 * np.log10(power.clip(min=1e-12))
    level -= level.max()
    return [part.T for part in np.split(level, len(rows))], sound


def _mels(path: Path, channel: str) -> Iterator[tuple[int, Tensor]]:
    """The power of mels, frame by frame: the number of the first of some frames, and ``(frames, mels)``."""
    filters = torchaudio.functional.melscale_fbanks(
        _TRANSFORM // 2 + 1, _LOWEST, _RATE / 2, _MELS, _RATE, norm=None, mel_scale="htk"
    )
    filters /= filters.sum(dim=0).clamp(min=1e-9)
    window, step = torch.hann_window(_TRANSFORM), _TRANSFORM // 2
    rest, done = torch.zeros(0), 0
    with Recording(path, _RATE, channel=channel, exact=False) as recording:
        for block in recording:
            rest = torch.cat([rest, block])
            if len(rest) < _TRANSFORM:
                continue
            frames = rest.unfold(0, _TRANSFORM, step)
            yield done, torch.fft.rfft(frames * window).abs().square() @ filters
            done += len(frames)
            rest = rest[len(frames) * step :]
    if not done and len(rest):
        padded = torch.nn.functional.pad(rest, (0, _TRANSFORM - len(rest)))[None]
        yield 0, torch.fft.rfft(padded * window).abs().square() @ filters


class _Panels:
    """Axes of a row, one below the other."""

    def __init__(self, figure: Figure, total: float, top: float, span: tuple[float, float]) -> None:
        self._figure, self._total, self._y, self._span = figure, total, top, span
        self._last: Axes | None = None

    def below(self, height: float) -> Axes:
        """Axes of so many inches below those before."""
        rectangle = (
            _LEFT / _WIDTH,
            1 - (self._y + height) / self._total,
            1 - (_LEFT + _RIGHT) / _WIDTH,
            height / self._total,
        )
        ax = self._figure.add_axes(rectangle)
        ax.set_xlim(*self._span)
        ax.tick_params(labelbottom=False, bottom=False, labelsize=7, colors=INK, length=2)
        for spine in ax.spines.values():
            spine.set_color(FAINT)
        self._y += height + _GAP
        self._last = ax
        return ax

    def times(self, recorded_at: datetime | None) -> None:
        """Write the times below the last axes: by the clock, where it is known."""
        assert self._last is not None
        length = self._span[1] - self._span[0]
        step = next((each for each in _STEPS if length / each <= 14), _STEPS[-1])
        self._last.tick_params(labelbottom=True, bottom=True)
        self._last.xaxis.set_major_locator(MultipleLocator(step))
        self._last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _time(value, recorded_at, length)))


def _time(seconds: float, recorded_at: datetime | None, length: float) -> str:
    if recorded_at is not None:
        clock = recorded_at + timedelta(seconds=seconds)
        return (
            f"{clock:%H:%M:%S}" if length <= _ROW else f"{clock:%H:%M}" if length <= 86400 else f"{clock:%d %b %H:%M}"
        )
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _headline(figure: Figure, record: Record, shown: Sequence[int], total: float) -> None:
    place = _LEFT / _WIDTH
    name = printable(Path(record.file).name)
    when = "" if record.recorded_at is None else f"    {record.recorded_at:%Y-%m-%d %H:%M:%S %Z}".rstrip()
    figure.text(place, 1 - 0.28 / total, f"{name}{when}", fontsize=11, color=INK, va="center", parse_math=False)
    x = place
    for index, k in enumerate(shown):
        label = printable(record.labels[k])
        label = label if len(label) <= 28 else f"{label[:27]}…"
        figure.text(x, 1 - 0.58 / total, "■", fontsize=9, color=PALETTE[index], va="center")
        figure.text(x + 0.011, 1 - 0.58 / total, label, fontsize=8, color=INK, va="center", parse_math=False)
        x += 0.022 + 0.0058 * len(label)
    figure.text(
        1 - _RIGHT / _WIDTH,
        1 - 0.28 / total,
        "lines: probability, with the central 90 % of the draws",
        fontsize=7,
        color=INK,
        va="center",
        ha="right",
    )


def _draw_spectrogram(ax: Axes, mels: NDArray[np.float32], span: tuple[float, float], sound: bool) -> None:
    if sound:
        ax.imshow(
            mels,
            aspect="auto",
            origin="lower",
            cmap="magma",
            vmin=-_RANGE,
            vmax=0,
            extent=(*span, 0, _MELS),
            interpolation="nearest",
        )
    else:
        ax.text(0.5, 0.5, "the recording cannot be read again", transform=ax.transAxes, ha="center", color=INK)
    ticks = [500, 2000, 8000]
    ax.set_ylim(0, _MELS)
    ax.set_yticks([_mel_of(each) for each in ticks], [f"{each / 1000:g} kHz" for each in ticks])


def _mel_of(frequency: float) -> float:
    """Where a frequency is among the mels."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    return (mel(frequency) - mel(_LOWEST)) / (mel(_RATE / 2) - mel(_LOWEST)) * (_MELS + 1) - 0.5


def _within(event: Event, span: tuple[float, float]) -> bool:
    return event.onset < span[1] and event.offset > span[0]


def _draw_events(ax: Axes, events: Sequence[Event], record: Record, shown: Sequence[int]) -> None:
    colors = {record.labels[k]: PALETTE[index] for index, k in enumerate(shown)}
    lanes = sorted(
        {event.label for event in events}, key=lambda label: list(colors).index(label) if label in colors else 99
    )
    ax.set_ylim(max(1, len(lanes)), 0)
    for event in events:
        color = colors.get(event.label, PALETTE[-1])
        lane = lanes.index(event.label)
        ax.barh(
            lane + 0.5,
            event.offset - event.onset,
            left=event.onset,
            height=0.8,
            color=color,
            alpha=0.25 + 0.75 * event.probability,
        )
    ax.set_yticks([0.5 * max(1, len(lanes))], ["events"])


def _draw_lines(ax: Axes, row: _Row, record: Record, shown: Sequence[int]) -> None:
    middle = (row.start + row.end) / 2
    for index, k in reversed(list(enumerate(shown))):
        color = PALETTE[index]
        ax.fill_between(middle, row.low[:, k], row.high[:, k], color=color, alpha=0.25, linewidth=0, step="mid")
        ax.step(middle, row.probability[:, k], where="mid", color=color, linewidth=0.9)
    ax.set_ylim(-0.03, 1.03)
    ax.set_yticks([0, 0.5, 1])
    ax.grid(axis="y", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)


def _draw_strip(ax: Axes, row: _Row, values: NDArray[np.float32], name: str, most: float) -> None:
    _draw_cells(ax, row, values / most, "Greys" if name == "aleatoric" else "Oranges")
    ax.set_yticks([0.5], [name])


def _draw_marks(ax: Axes, row: _Row) -> None:
    _draw_cells(ax, row, np.where(row.outside, 1.0, np.where(row.left, 0.4, 0.0)), "Reds")
    ax.set_yticks([0.5], ["outside, left"])


def _draw_cells(ax: Axes, row: _Row, values: NDArray[np.floating], cmap: str) -> None:
    ax.set_ylim(0, 1)
    if not len(values):
        return
    # Where windows overlap, each is drawn up to where the next begins.
    edges = np.append(row.start, row.end[-1])
    edges = np.maximum.accumulate(edges)
    ax.pcolormesh(edges, [0, 1], values[None], cmap=cmap, vmin=0, vmax=1, shading="flat", rasterized=True)
