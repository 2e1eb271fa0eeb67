"""Digests that are right again after a file was damaged, so that what follows their check is reached too.

A stranger who makes a file computes them as well.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import h5py

from bayes_panns.core.digests import DIGEST, digest_of, sha256_of


def reseal(run: Path) -> None:
    """Make every digest in the folder of a run fit what is there; what cannot be read stays."""
    posterior, evaluation = run / "posterior", run / "evaluation"
    header = posterior / "posterior.toml"
    if header.is_file():
        text = header.read_bytes()
        for key, name in (("sha256", "guide.safetensors"), ("clips_sha256", "fitted-clips.npz")):
            text = _replaced(text, key, sha256_of(posterior / name))
        try:
            table = tomllib.loads(text.decode())
            text = _replaced(text, DIGEST, _of(table))
        except (ValueError, RecursionError, TypeError):
            pass
        header.write_bytes(text)
    if evaluation.is_dir():
        _json(evaluation / "evaluation.json", {"sha256": sha256_of(evaluation / "predictions.npz")})
    _json(run / "resume.json", {})
    # Without its digest, as in older runs, any recipe goes.
    recipe = (run / "run.toml").read_bytes()
    (run / "run.toml").write_bytes(re.sub(rb'(?m)^digest = "[0-9a-f]*"\n', b"", recipe))
    lines = (run / "metrics.jsonl").read_bytes().split(b"\n")
    (run / "metrics.jsonl").write_bytes(b"\n".join(_line(line, {}) for line in lines))


def unseal(store: Path) -> None:
    """Take the digests out of a store, as stores of earlier versions and of PANNs have none."""
    with h5py.File(store, "r+") as file:
        file.attrs.pop("sha256", None)
        file.pop("digest", None)


def _replaced(text: bytes, key: str, value: str) -> bytes:
    return re.sub(rf'(?m)^{key} = "[0-9a-f]*"'.encode(), f'{key} = "{value}"'.encode(), text)


def _json(path: Path, changes: dict[str, Any]) -> None:
    path.write_bytes(_line(path.read_bytes(), changes))


def _line(text: bytes, changes: dict[str, Any]) -> bytes:
    try:
        table = json.loads(text)
        if not isinstance(table, dict) or DIGEST not in table:
            return text
        table |= {key: value for key, value in changes.items() if key in table}
        return json.dumps({**table, DIGEST: _of(table)}).encode()
    except (ValueError, RecursionError, TypeError):
        return text


def _of(table: dict[str, Any]) -> str:
    return digest_of({key: value for key, value in table.items() if key != DIGEST})
