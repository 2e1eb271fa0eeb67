"""The kinds of file: where good ones are, how they are damaged, and which commands read them."""

from dataclasses import dataclass
from typing import Any

from tests.fuzz import containers, tables
from tests.fuzz.material import ENCODERS, SOUNDS
from tests.fuzz.mutations import BYTES, Mutation

Command = tuple[str, ...]
"""Words of a command; HOME and FILE stand for the folder of the good files and the damaged file."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: The name.
        trees: The folder of its good files, below the material; each folder in it is a variant.
        file: The file that is damaged, by a glob in the variant.
        mutations: What is done to it.
        commands: What is then run, one of these.
        weight: The share of inputs, in relation to other kinds.
        quick: Whether some inputs go into the short run.
        run: The folder of the run that the file belongs to. In half of the cases the digests there are made to fit
            again, so that what follows their check is reached too.
    """

    name: str
    trees: str
    file: str
    mutations: tuple[Mutation, ...]
    commands: tuple[Command, ...]
    weight: float = 1.0
    quick: bool = True
    run: str | None = None


def _several(mutations: tuple[Mutation, ...], times: int) -> tuple[Mutation, ...]:
    return mutations * times


_PREDICT = ("predict", "HOME/good/net", "FILE", "--draws", "0", "--format", "json")
_SOUND = (
    _PREDICT,
    (*_PREDICT, "--window", "0.3", "--hop", "0.2"),
    ("pack", "folder", ".", "-o", "out.h5", "--seconds", "0.5", "--sample-rate", "8000"),
    ("embed", "HOME/good/net", "FILE", "-o", "out.npz"),
)
_PACK_TABLE = ("pack", "folder", "FILE", "-o", "out.h5", "--seconds", "0.5", "--sample-rate", "8000")
_VECTORS = (("pack", "embeddings", "FILE", "-o", "out.h5"),)
_STORE = (
    ("inspect", "FILE"),
    ("evaluate", "HOME/good/net", "--data", "FILE", "--draws", "0"),
    ("embed", "HOME/good/net", "FILE", "-o", "out.npz"),
)
_FIT_HEAD = ("pretrain", "HOME/run-toml/0/recipe.toml", "--data", "FILE", "-o", "out")
_RESUME = ("pretrain", "run/run.toml", "-o", "run", "--resume", "--set", "fit.epochs=2")
_HEAD = (("inspect", "run"), ("evaluate", "run", "--data", "HOME/good/vectors.h5", "--draws", "2"))
_TEXT = (*tables.TEXT, *BYTES)
_TABLE = (*_several((tables.cells(),), 12), *_TEXT)
_TABS = (*_several((tables.cells("\t"),), 12), *_TEXT)
_SETTINGS = (*_several((tables.settings,), 15), *_TEXT)
_JSON = (*_several((tables.members,), 12), *_TEXT)
_ZIP = (*_several(containers.ZIP, 12), *BYTES)
_HDF5 = (*_several(containers.HDF5, 14), *BYTES)
_SAFETENSORS = (*_several(containers.SAFETENSORS, 10), *BYTES)


def _layout(catalog: str, file: str) -> Kind:
    pack = ("pack", catalog, ".", "-o", "out.h5", "--seconds", "0.5", "--sample-rate", "8000")
    return Kind(f"{catalog}-csv", catalog, file, _TABLE, (pack,))


def _of_run(
    name: str, file: str, mutations: tuple[Mutation, ...], commands: tuple[Command, ...], **options: Any
) -> Kind:
    return Kind(name, "run", f"run/{file}", mutations, commands, run="run", **options)


KINDS = {
    kind.name: kind
    for kind in (
        *(Kind(ending, f"sounds/{ending}", f"sound.{ending}", BYTES, _SOUND) for ending in SOUNDS),
        *(Kind(ending, f"sounds/{ending}", f"sound.{ending}", BYTES, _SOUND, quick=False) for ending in ENCODERS),
        Kind("store", "store", "clips.h5", _HDF5, _STORE, weight=2),
        Kind("vectors-store", "vectors-store", "clips.h5", _HDF5, (("inspect", "FILE"), _FIT_HEAD), weight=1.5),
        Kind("npz", "npz", "vectors.npz", _ZIP, _VECTORS),
        Kind("embedding-csv", "embedding-csv", "vectors.csv", _TABLE, _VECTORS),
        Kind("parquet", "parquet", "vectors.parquet", BYTES, _VECTORS),
        Kind("label-csv", "label-csv", "table.csv", _TABLE, (_PACK_TABLE,), weight=1.5),
        Kind("timed-csv", "timed-csv", "labels.csv", _TABLE, (_PACK_TABLE,)),
        Kind("raven", "raven", "*.selections.txt", _TABS, (_PACK_TABLE,)),
        Kind("audacity", "audacity", "rec.txt", _TABS, (_PACK_TABLE,)),
        Kind("crowsetta", "crowsetta", "labels.csv", _TABLE, (_PACK_TABLE,)),
        _layout("esc50", "meta/esc50.csv"),
        _layout("urbansound8k", "metadata/UrbanSound8K.csv"),
        _layout("audioset", "balanced_train_segments.csv"),
        Kind(
            "label-index",
            "audioset",
            "class_labels_indices.csv",
            _TABLE,
            (("pack", "audioset", ".", "-o", "out.h5", "--seconds", "0.5", "--sample-rate", "8000"),),
            weight=0.5,
        ),
        _of_run("posterior-toml", "posterior/posterior.toml", _SETTINGS, _HEAD, weight=1.5),
        _of_run("safetensors", "posterior/guide.safetensors", _SAFETENSORS, _HEAD, weight=1.5),
        _of_run("fitted-clips", "posterior/fitted-clips.npz", _ZIP, _HEAD),
        _of_run("checkpoint", "checkpoint.pt", _ZIP, (_RESUME,), weight=1.5),
        _of_run("resume-json", "resume.json", _JSON, (_RESUME, ("inspect", "run"))),
        _of_run("metrics-jsonl", "metrics.jsonl", _JSON, (_RESUME, ("inspect", "run")), weight=0.5),
        _of_run("run-toml-kept", "run.toml", _SETTINGS, (_RESUME, ("inspect", "run"))),
        _of_run("evaluation-json", "evaluation/evaluation.json", _JSON, (("report", "run"),), quick=False),
        _of_run("predictions", "evaluation/predictions.npz", _ZIP, (("report", "run"),), quick=False),
        Kind(
            "run-toml",
            "run-toml",
            "recipe.toml",
            _SETTINGS,
            (("pretrain", "FILE", "--data", "HOME/good/vectors.h5", "-o", "out"),),
        ),
        Kind(
            "guide-toml",
            "guide-toml",
            "guide.toml",
            _SETTINGS,
            (("import", "panns", "HOME/checkpoint/0/net.pth", "-o", "out", "--scale", "moped", "--guide", "FILE"),),
        ),
        Kind("pth", "checkpoint", "net.pth", _ZIP, (("import", "panns", "FILE", "-o", "out"),)),
    )
}
