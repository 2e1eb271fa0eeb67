"""The sounds that the hours are made of: clips of ESC-10 and UrbanSound8K, in three parts that share no recording."""

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns.audio.recording import Recording

RATE = 32000
"""Of all hours, in Hz."""

EVENTS: Mapping[str, tuple[str, ...]] = {
    "car_horn": ("car_horn",),
    "children_playing": ("children_playing",),
    "crying_baby": ("crying_baby",),
    "dog": ("dog", "dog_bark"),
    "drilling": ("drilling",),
    "gun_shot": ("gun_shot",),
    "rooster": ("rooster",),
    "sneezing": ("sneezing",),
}
"""The labels, each with the classes of the data sets that it stands for."""

BACKGROUND = ("air_conditioner", "engine_idling", "street_music", "rain", "sea_waves")
"""The classes of which the background is made; they are none of the labels."""

PARTS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "fit": ((1,), (1,)),
    "development": ((2, 3), (2, 3)),
    "test": ((4, 5), (10,)),
}
"""The folds of ESC-10 and of UrbanSound8K that each part has: to fit to, to choose rules by, and to test on."""

SHARED = {"114587", "180256", "203128", "163459", "199261", "30344", "59513"}
"""Recordings that are in both data sets; those of UrbanSound8K are left out."""

_FRAME = 0.02
_QUIET = 30.0
"""A clip's event begins with the first frame of 20 ms that is less than 30 dB quieter than the loudest, and ends with
the last."""


@dataclass
class Material:
    """The clips of a part: by class, and in it by recording.

    Attributes:
        events: Label to recording to files.
        background: Class to recording to files.
    """

    events: dict[str, dict[str, list[Path]]]
    background: dict[str, dict[str, list[Path]]]
    _read: dict[Path, NDArray[np.int16]] = field(default_factory=dict, repr=False)

    def waveform(self, path: Path) -> NDArray[np.float32]:
        """A clip, mono at ``RATE``."""
        if path not in self._read:
            with Recording(path, RATE) as recording:
                samples = torch.cat(list(recording)).numpy()
            # Some clips decode to more than full scale.
            scale = max(1.0, float(np.abs(samples).max()))
            self._read[path] = np.round(samples / scale * 32767).astype(np.int16)
        return self._read[path].astype(np.float32) / np.float32(32767)

    def event(self, path: Path) -> NDArray[np.float32]:
        """What is heard in a clip, without the silence before and after it."""
        samples = self.waveform(path)
        start, end = heard(samples)
        return samples[start:end]


def heard(samples: NDArray[np.float32]) -> tuple[int, int]:
    """From which sample to which a clip is less than 30 dB quieter than at its loudest, in frames of 20 ms."""
    size = round(_FRAME * RATE)
    frames = samples[: max(1, len(samples) // size) * size]
    power = (frames.reshape(-1, min(size, len(frames))) ** 2).mean(axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-_QUIET / 10))
    return int(loud[0]) * size, min(len(samples), (int(loud[-1]) + 1) * size)


def material(data: Path, part: str) -> Material:
    """The clips of a part.

    Args:
        data: The folder with ``esc10/`` and ``urbansound8k/``.
        part: One of ``PARTS``.
    """
    esc, urban = PARTS[part]
    found = defaultdict[str, dict[str, list[Path]]](lambda: defaultdict(list))
    for row in _rows(data / "esc10" / "meta" / "esc50.csv"):
        if int(row["fold"]) in esc:
            found[row["category"]][f"esc-{row['src_file']}"].append(data / "esc10" / "audio" / row["filename"])
    for row in _rows(data / "urbansound8k" / "metadata" / "UrbanSound8K.csv"):
        # In the others something else is in the foreground.
        if int(row["fold"]) in urban and row["salience"] == "1" and row["fsID"] not in SHARED:
            path = data / "urbansound8k" / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
            found[row["class"]][f"urban-{row['fsID']}"].append(path)
    events = {
        label: {source: files for name in names for source, files in found[name].items()}
        for label, names in EVENTS.items()
    }
    return Material(events, {name: dict(found[name]) for name in BACKGROUND})


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))
