"""DCASE 2013's acoustic scenes (Stowell et al., 2015, https://doi.org/10.1109/TMM.2015.2428998)."""

import re
from pathlib import Path

from bayes_panns.clips.catalogs.catalog import Catalog, Clip, find_sounds, require_folder
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError

SCENES = (
    "bus",
    "busystreet",
    "office",
    "openairmarket",
    "park",
    "quietstreet",
    "restaurant",
    "supermarket",
    "tube",
    "tubestation",
)
"""The classes."""

SCENE_FOLDS = 5
"""Folds that the development set is divided into; the test set is the next."""


def dcase2013(source: Path) -> Catalog:
    """DCASE 2013's scenes: ``scenes_stereo/``, the development set, and ``scenes_stereo_testset/``; one alone will do.

    Files are named after their class and a number, as in ``bus01.wav``. The challenge scored each system by five-fold
    cross-validation on the test set and gave the development set no folds. Here the test set is fold 6, kept whole, and
    the development set is divided into folds 1 to 5: of each class the first fifth of its recordings, in the order of
    their numbers, is in fold 1, and so on. Neighbours in number stay together.

    Args:
        source: The folder that holds the two.

    Raises:
        StoreError: The folder holds neither, or a recording in it is not named after a scene.
    """
    source = require_folder(source, "DCASE 2013's scenes", "scenes_stereo/ and scenes_stereo_testset/")
    parts = [source / "scenes_stereo", source / "scenes_stereo_testset"]
    there = [part for part in parts if part.is_dir()]
    if not there:
        raise StoreError(
            f"{source}: holds neither scenes_stereo/ nor scenes_stereo_testset/; unpack the archives there"
        )
    clips: list[Clip] = []
    for part in there:
        found = [(*_scene(path), path) for path in find_sounds(part)]
        for label in range(len(SCENES)):
            recordings = sorted((number, path) for scene, number, path in found if scene == label)
            for rank, (_, path) in enumerate(recordings):
                fold = SCENE_FOLDS if part == parts[1] else rank * SCENE_FOLDS // len(recordings)
                clips.append(Clip(path, path.relative_to(source).as_posix(), (label,), fold + 1))
    return Catalog("dcase2013", SCENES, Task.ONE_OF_K, 30.0, tuple(clips), source)


def _scene(path: Path) -> tuple[int, int]:
    """The class and the number in a name such as ``bus01.wav``."""
    named = re.fullmatch(r"(?P<scene>[a-z]+)(?P<number>\d+)", path.stem)
    if named is None or named["scene"] not in SCENES:
        raise StoreError(f"{path}: is not named after a scene and a number, as bus01.wav is; move it elsewhere")
    return SCENES.index(named["scene"]), int(named["number"])
