"""The good files that are damaged: small ones of every kind, and the posteriors and stores that commands on them need.

``good/`` holds what a command reads beside the damaged file. Each other folder is a tree that is copied for an input.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import torch

from bayes_panns.clips import CATALOGS, Task, pack, write, write_embeddings
from bayes_panns.interop import export_checkpoint
from bayes_panns.jobs import evaluate_posterior, fit
from bayes_panns.posterior import Posterior, load, save
from bayes_panns.recipes import Data, Run, read_strategy
from bayes_panns.svi import FitSettings

RATE, WIDTH = 8000, 8
LABELS = ("high", "low", "mid")

SOUNDS = {
    "wav": (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_16")),
    "flac": (("FLAC", "PCM_16"), ("FLAC", "PCM_24")),
    "ogg": (("OGG", "VORBIS"),),
    "opus": (("OGG", "OPUS"),),
    "mp3": (("MP3", "MPEG_LAYER_III"),),
    "aiff": (("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AIFF", "IMA_ADPCM")),
    "w64": (("W64", "PCM_16"), ("W64", "MS_ADPCM")),
    "caf": (("CAF", "PCM_16"), ("CAF", "ALAC_16")),
    "au": (("AU", "PCM_16"), ("AU", "ULAW")),
}
"""Sound files that libsndfile writes: format and subtype of each variant, by the ending."""

ENCODERS = {
    "m4a": ("-c:a", "aac", "-f", "ipod"),
    "webm": ("-c:a", "libopus", "-f", "webm"),
    "mp4": ("-c:a", "aac", "-f", "mp4", "-movflags", "faststart"),
}
"""What ffmpeg is told, by the ending."""


def make(home: Path) -> None:
    """Write everything into ``home``, which is empty. The same bytes each time, but for times that writers put in."""
    torch.manual_seed(0)
    good = home / "good"
    good.mkdir(parents=True)
    _posteriors(home, good)
    _sounds(home)
    _stores(home, good)
    _tables(home)
    _recipes(home)


def ffmpeg() -> str | None:
    """The program, if it is installed or the package that brings one is."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def tone(seed: int, seconds: float = 0.7, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A decaying tone with some noise, ``(T, channels)``."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * (300 + 200 * (seed % 5)) * time) * np.exp(-2 * time)
    return (wave + 0.02 * rng.normal(size=len(time)))[:, None].repeat(channels, axis=1)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def _sound(path: Path, seed: int = 0, seconds: float = 0.7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seed, seconds), RATE)


def _sounds(home: Path) -> None:
    for ending, variants in SOUNDS.items():
        for index, (form, subtype) in enumerate(variants):
            tree = home / "sounds" / ending / str(index)
            tree.mkdir(parents=True)
            rate = 44100 if index == 0 and ending in ("wav", "mp3") else 48000 if ending == "opus" else RATE
            seconds = 0.7 if rate == RATE else 0.3
            wave = tone(index, seconds, rate, channels=1 + (index == 0))
            soundfile.write(tree / f"sound.{ending}", wave, rate, format=form, subtype=subtype)
    if program := ffmpeg():
        (home / "bin").mkdir()
        (home / "bin" / "ffmpeg").symlink_to(program)
        raw = tone(0, 0.4, 48000).astype("<f4").tobytes()
        for ending, options in ENCODERS.items():
            tree = home / "sounds" / ending / "0"
            tree.mkdir(parents=True)
            source = ("-f", "f32le", "-ar", "48000", "-ac", "1", "-i", "-", "-fflags", "+bitexact")
            subprocess.run(
                [program, "-v", "error", *source, "-threads", "1", *options, tree / f"sound.{ending}"],
                input=raw,
                check=True,
            )


def _posteriors(home: Path, good: Path) -> None:
    """A network for sound, and the run of a last layer on embeddings with all that a run has."""
    net = Posterior.build(
        net="resnet14-narrow",
        labels=LABELS,
        task=Task.ONE_OF_K,
        sample_rate=RATE,
        clip_seconds=0.5,
        strategy=read_strategy("det-flip"),
    )
    save(net, good / "net")
    tree = home / "checkpoint" / "0"
    tree.mkdir(parents=True)
    export_checkpoint(net, tree / "net.pth")
    rng = np.random.default_rng(0)
    label = np.arange(12) % 3
    vectors = (np.eye(WIDTH)[label] + 0.5 * rng.normal(size=(12, WIDTH))).astype(np.float32)
    store = good / "vectors.h5"
    write_embeddings(store, vectors, np.eye(3, dtype=bool)[label], LABELS, Task.ONE_OF_K, fold=label + 1)
    run = home / "run" / "0"
    recipe = Run(
        net="embeddings",
        guide="det-flip",
        data=Data(stores=["vectors.h5"], validation=0.25),
        fit=FitSettings(epochs=1, batch_size=4, spec_augment=False, features="embeddings"),
    )
    run.mkdir(parents=True)
    shutil.copy(store, run / "vectors.h5")
    _fit(recipe, run)
    evaluate_posterior(load(run / "run"), [store], draws=2).save(run / "run" / "evaluation")
    shutil.copytree(run / "run" / "posterior", good / "head")


def _fit(recipe: Run, folder: Path) -> None:
    """A fit whose recipe names the store by a relative path, so that its folder may be copied."""
    import os

    before = Path.cwd()
    os.chdir(folder)
    try:
        fit(recipe, Path("run"))
    finally:
        os.chdir(before)


def _stores(home: Path, good: Path) -> None:
    tree = home / "store" / "0"
    tree.mkdir(parents=True)
    waves = np.stack([tone(seed, 0.5)[:, 0] for seed in range(9)])
    target = np.eye(3, dtype=bool)[np.arange(9) % 3]
    write(tree / "clips.h5", waves, target, LABELS, Task.ONE_OF_K, RATE, fold=np.arange(9) % 3 + 1)
    shutil.copy(tree / "clips.h5", good / "clips.h5")
    second = home / "store" / "1"
    second.mkdir()
    sounds = home / "made"
    for index in range(4):
        _sound(sounds / LABELS[index % 2] / f"{index}.wav", index)
    pack(CATALOGS["folder"](sounds), second / "clips.h5", sample_rate=RATE, seconds=0.5)
    vectors = home / "vectors-store" / "0"
    vectors.mkdir(parents=True)
    shutil.copy(good / "vectors.h5", vectors / "clips.h5")


def _tables(home: Path) -> None:
    rng = np.random.default_rng(1)
    vectors, labels = rng.normal(size=(6, WIDTH)).astype(np.float32), ["wren", "lark", "wren", "owl", "lark", "owl"]
    recordings, folds = [f"r{index}" for index in range(6)], [1, 2, 1, 2, 1, 2]
    tree = home / "npz" / "0"
    tree.mkdir(parents=True)
    columns = {"labels": labels, "folds": folds, "recordings": recordings, "model": "BirdNET 2.4"}
    np.savez(tree / "vectors.npz", embeddings=vectors, **columns)
    tree = home / "npz" / "1"
    tree.mkdir()
    numbers = {"labels": np.eye(3, dtype=bool)[np.arange(6) % 3], "label_names": LABELS}
    np.savez_compressed(tree / "vectors.npz", X=vectors, start=np.arange(6) / 2, end=np.arange(6) / 2 + 1, **numbers)
    header = ["file", "start", "end", "label", *(f"e{number}" for number in range(WIDTH))]
    rows = [[f"r{index}.wav", 0, 1, labels[index], *vectors[index]] for index in range(6)]
    _write(home / "embedding-csv" / "0" / "vectors.csv", _csv(header, rows))
    joined = [[label, ",".join(map(str, vector))] for label, vector in zip(labels, vectors, strict=True)]
    _write(home / "embedding-csv" / "1" / "vectors.csv", _csv(["label", "embedding"], joined))
    _parquet(home / "parquet", vectors, labels, folds)
    tree = home / "label-csv" / "0"
    for index in range(3):
        _sound(tree / "sounds" / f"{index}.wav", index)
    rows = [["sounds/0.wav", "dog", 1, "a"], ["sounds/1.wav", "cat;dog", 2, "b"], ["sounds/2.wav", "cat", 1, "c"]]
    _write(tree / "table.csv", _csv(["file", "labels", "fold", "source"], rows))
    _published(home)
    _timed(home)


def _csv(header: list[str], rows: list[list]) -> str:
    import csv
    import io

    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def _parquet(place: Path, vectors: np.ndarray, labels: list[str], folds: list[int]) -> None:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        return
    columns = {"label": labels, "fold": folds}
    forms = ({"embedding": vectors.tolist()}, {f"e{number}": vectors[:, number] for number in range(WIDTH)})
    for index, form in enumerate(forms):
        (place / str(index)).mkdir(parents=True)
        compression = ("snappy", "zstd")[index]
        parquet.write_table(
            arrow.table({**columns, **form}), place / str(index) / "vectors.parquet", compression=compression
        )


def _published(home: Path) -> None:
    """Tables in the layout of published data sets."""
    tree = home / "esc50" / "0"
    rows = [[f"{n % 2 + 1}-{n}-A-{n}.wav", n % 2 + 1, n, f"class{n}", n == 0, n, "A"] for n in range(3)]
    for row in rows:
        _sound(tree / "audio" / row[0], row[2])
    _write(
        tree / "meta" / "esc50.csv",
        _csv(["filename", "fold", "target", "category", "esc10", "src_file", "take"], rows),
    )
    tree = home / "urbansound8k" / "0"
    header = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    rows = [[f"{n}-{n}-0-0.wav", n, 0.0, 1.0, 1, n % 2 + 1, n, f"class{n}"] for n in range(3)]
    for row in rows:
        _sound(tree / "audio" / f"fold{row[5]}" / row[0], row[1])
    _write(tree / "metadata" / "UrbanSound8K.csv", _csv(header, rows))
    tree = home / "audioset" / "0"
    names = [f"-_{number:09}" for number in range(3)]
    _write(tree / "class_labels_indices.csv", 'index,mid,display_name\n0,/m/0,Speech\n1,/m/1,"Male speech, man"\n')
    lines = "".join(f'{name}, 30.000, 40.000, "/m/0{",/m/1" * (name == names[0])}"\n' for name in names)
    _write(tree / "balanced_train_segments.csv", f"# Segments csv\n# YTID, start_seconds, positive_labels\n{lines}")
    for index, name in enumerate(names):
        _sound(tree / "sounds" / f"Y{name}.wav", index)


def _timed(home: Path) -> None:
    """Labels with times, as Raven, Audacity and crowsetta write them, and as a plain table."""
    raven = (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"
        "1\tSpectrogram 1\t1\t0.2\t0.7\t100\t3000\twren\n2\tSpectrogram 1\t1\t1.0\t1.6\t100\t3000\tlark\n"
    )
    audacity = "0.200000\t0.700000\twren\n\\\t100.0\t3000.0\n1.000000\t1.600000\tlark\n"
    generic = (
        "label,onset_s,offset_s,onset_sample,offset_sample,notated_path,annot_path,sequence,annotation\n"
        "wren,0.2,0.7,1600,5600,rec.wav,rec.csv,0,0\nlark,1.0,1.6,8000,12800,rec.wav,rec.csv,0,0\n"
    )
    plain = "file,labels,start,end\nrec.wav,wren,0.2,0.7\nrec.wav,lark,1.0,1.6\n"
    forms = {"raven": ("rec.Table.1.selections.txt", raven), "audacity": ("rec.txt", audacity)}
    forms |= {"crowsetta": ("labels.csv", generic), "timed-csv": ("labels.csv", plain)}
    for kind, (name, text) in forms.items():
        _sound(home / kind / "0" / "rec.wav", 1, 2.0)
        _write(home / kind / "0" / name, text)


def _recipes(home: Path) -> None:
    guide = (
        'description = "A guide"\ndropout = "off"\n\n[default]\nposterior = "normal"\nprior = "fan-in"\n'
        'prior_scale = 1.0\ninit_scale = 0.1\nestimator = "flipout"\n\n[[rule]]\nmatch = "fc*"\nposterior = "point"\n'
    )
    run = (
        'description = "A run"\nnet = "embeddings"\nguide = "det-flip"\n\n[data]\nvalidation = 0.25\n\n[fit]\n'
        'epochs = 1\nbatch_size = 4\nlearning_rate = 1e-2\nschedule = "cosine"\nkl_weight = 0.1\nkl_warmup = 1\n'
        'features = "embeddings"\nspec_augment = false\nmixup = false\nseed = 1\n'
    )
    for kind, name, text in (("guide-toml", "guide.toml", guide), ("run-toml", "recipe.toml", run)):
        _write(home / kind / "0" / name, text)
