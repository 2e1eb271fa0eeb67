"""The inputs of a fit of the last layer: embeddings of a frozen backbone, computed once and kept on disk.

Beside a store ``STORE.h5`` is a folder ``STORE.embeddings/`` with a file for each backbone. Backbones and clips are
identified by content: the name of a file is a digest of the backbone's weights, BatchNorm statistics and front end, and
a row has the digest of its clip's samples. So folds, subsets and a store that was packed again reuse the embeddings,
and another backbone or other clips do not. The folder may be deleted at any time.

A store of embeddings that another model has made needs none of this: they are read as they are.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from bayes_panns.audio.augment import SpecAugment
from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.bayes import BayesianNet
from bayes_panns.clips import ClipSet, Store
from bayes_panns.core import progress
from bayes_panns.core.archives import check_npz
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.errors import RecipeError
from bayes_panns.core.files import locked, whole_file
from bayes_panns.nets import Network, backbone
from bayes_panns.ranks import per_clip
from bayes_panns.svi.features import as_observed, targets

logger = logging.getLogger(__name__)

FORMAT = 1
"""The version of the files; files of another version are not found."""

_CHUNK = 32
_MEMORY = 1 << 29
"""The most clips a pass, and the bytes that their activations may take."""

_SLACK = 0.02
"""The relative difference allowed to the embedding on disk: devices and versions of torch round differently."""


class Embeddings:
    """The embeddings and targets of a set of clips, by index.

    Args:
        clips: The clips.
        model: The model, with a front end; its backbone is frozen and deterministic.
        task: How the targets are read.
        views: How many more embeddings a clip has: of its spectrogram under
            :class:`~bayes_panns.audio.augment.SpecAugment`. They are computed each time.
        seed: Seeds the stripes.
        device: Where to compute.

    Attributes:
        backbone: A digest of all that decides the embeddings of a waveform.
        views: The embeddings, shape ``(clips, 1 + views, embedding)``: first the clip's own.

    Raises:
        RecipeError: The backbone is not frozen, or not deterministic.
        ValueError: Views are asked for, and the clips are embeddings already.
        StoreError: The task is one-of-K and a clip does not have exactly one label.
    """

    embedded = True
    reader = None

    def __init__(
        self,
        clips: ClipSet,
        model: BayesianNet,
        task: Task,
        *,
        views: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        require_fixed(model)
        self.clips = clips
        self.target = as_observed(targets(clips, task))
        self.backbone = fingerprint(model)
        self._model, self._device = model.to(device).eval(), device
        self._size = cast(nn.Linear, model.net.get_submodule(model.head)).in_features
        if clips.holds == Holds.EMBEDDINGS:
            if views:
                raise ValueError("embeddings of another model have no views: there is no spectrogram")
            self.views = torch.from_numpy(clips.embedding(np.arange(len(clips))))[:, None]
            return
        self.views = torch.empty(len(clips), 1 + views, self._size)
        generator = torch.Generator().manual_seed(seed)
        for store, positions, rows in clips.by_store():
            self.views[positions, 0] = torch.from_numpy(self._of(store, rows))
            if views:
                self.views[positions, 1:] = torch.from_numpy(self._masked(store, rows, views, generator))

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """The clips at ``index``, int64 of shape ``(batch,)``; of several views, a random one by torch's random state.

        Returns:
            Embeddings ``(batch, embedding)``; and the targets, int64 ``(batch,)`` for one-of-K, float ``(batch, K)``
            for multi-label.
        """
        count = self.views.shape[1]
        view = per_clip(lambda clips: torch.randint(count, (clips,)), len(index)) if count > 1 else 0
        return self.views[index, view].to(device), self.target[index].to(device)

    def _of(self, store: Store, rows: np.ndarray) -> np.ndarray:
        """The embeddings of the clips of ``store`` at ``rows``: from its file, or computed and added to it."""
        path = store.path.with_suffix(".embeddings") / f"{self.backbone}.npz"
        digests, known, replaces = store.digests(rows), self._read(path), False
        held = next((index for index, digest in enumerate(digests) if digest in known), None)
        if held is not None:
            now = self._compute(store, rows[held : held + 1])[0]
            # The name of the file does not change with the network's code.
            if not np.linalg.norm(now - known[digests[held]]) <= _SLACK * np.linalg.norm(now):
                logger.info(f"{path}: its embeddings differ from those of this version; they are computed again")
                known, replaces = {}, True
        # A clip that is there twice is computed once.
        missing = {digest: row for digest, row in zip(digests, rows, strict=True) if digest not in known}
        origin = f"read from {path}"
        if missing:
            started = time.monotonic()
            try:
                self._add(known, missing, store)
            finally:
                # An interrupted run leaves what it has computed.
                where = self._write(path, known, replaces=replaces) if known else ""
            origin = f"{len(missing)} computed in {time.monotonic() - started:.1f} s, {where}"
        logger.info(f"embeddings of {len(rows)} clips of {store.path.name}: {origin}")
        return np.stack([known[digest] for digest in digests])

    def _add(self, known: dict[bytes, np.ndarray], missing: dict[bytes, int], store: Store) -> None:
        digests, rows = list(missing), np.array(list(missing.values()))
        with progress.task("embeddings", total=len(missing), unit="clip") as bar:
            for chunk in self._chunks(store, len(rows)):
                known |= zip(digests[chunk], self._compute(store, rows[chunk]), strict=True)
                bar.advance(len(rows[chunk]))

    def _masked(self, store: Store, rows: np.ndarray, views: int, generator: torch.Generator) -> np.ndarray:
        """Embeddings ``(rows, views, embedding)`` of the clips of ``store`` at ``rows`` under SpecAugment."""
        masked = np.empty((len(rows), views, self._size), dtype=np.float32)
        augment = partial(SpecAugment(), generator=generator)
        with progress.task("views", total=views * len(rows), unit="clip") as bar:
            for chunk in self._chunks(store, len(rows)):
                for view in range(views):
                    masked[chunk, view] = self._compute(store, rows[chunk], augment)
                    bar.advance(len(rows[chunk]))
        return masked

    def _chunks(self, store: Store, clips: int) -> list[slice]:
        frames = cast(FrontEnd, self._model.front_end).frames(store.samples)
        size = max(1, min(_CHUNK, _MEMORY // cast(Network, self._model.net).activation_bytes(frames)))
        return [slice(start, start + size) for start in range(0, clips, size)]

    @torch.no_grad()
    def _compute(self, store: Store, rows: np.ndarray, augment: Callable[[Tensor], Tensor] | None = None) -> np.ndarray:
        waveform = torch.from_numpy(store.waveform(rows)).to(self._device)
        return self._model.embed(waveform, augment).cpu().numpy()

    def _read(self, path: Path) -> dict[bytes, np.ndarray]:
        """The embeddings in a file, by the digest of their clip; none if the file is missing or damaged."""
        if not path.is_file():
            return {}
        try:
            check_npz(path)
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                digests, embeddings = arrays["digest"], arrays["embedding"]
            if embeddings.shape != (len(digests), self._size) or embeddings.dtype != np.float32:
                raise ValueError(f"it holds {embeddings.dtype} of shape {embeddings.shape}")
            return {digest.tobytes(): embedding for digest, embedding in zip(digests, embeddings, strict=True)}
        except Exception as error:
            # A damaged file makes zipfile and NumPy raise a dozen kinds of errors.
            reason = " ".join(str(error).split())
            logger.info(f"{path}: cannot be read ({reason}); the embeddings are computed again")
            return {}

    def _write(self, path: Path, known: dict[bytes, np.ndarray], *, replaces: bool) -> str:
        """Write the file, whole or not at all, with what another process has added to it meanwhile.

        Args:
            path: The file.
            known: The embeddings, by the digest of their clip.
            replaces: Whether what is in the file is wrong.

        Returns:
            Where the embeddings are kept, or why they are not.
        """
        try:
            path.parent.mkdir(exist_ok=True)
            with locked(path.parent, wait=True):
                known = known if replaces else self._read(path) | known
                digests = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(len(known), -1)
                with whole_file(path) as part, part.open("wb") as file:
                    np.savez(file, digest=digests, embedding=np.stack(list(known.values())))
        except OSError as error:
            return f"not kept: {path.parent} cannot be written ({error.strerror})"
        return f"kept in {path}"


def require_fixed(model: BayesianNet) -> None:
    """Check that a fit changes nothing before the last layer of ``model``, and that a clip has one embedding.

    Raises:
        RecipeError: A weight or a statistic before the last layer is drawn or trained, dropout stays on, or the network
            tags segments of a clip.
    """
    setting = 'fit.features = "embeddings"'
    require_single_embedding(model, setting, 'use fit.features = "memory"')
    if not model.only_head:
        drawn = [each.name for site, each in model.sites.items() if site not in model.head_sites]
        what = f"draws {drawn[0]} and {len(drawn) - 1} more weights" if drawn else "leaves dropout on"
        raise RecipeError(
            f"{setting}: the guide {what} before the last layer, so each draw has its own embeddings; use a guide "
            "with a point backbone, such as det-flip"
        )
    training = model.training
    model.train()
    moving = [name for name in backbone(model.net, model.head) if _moves(model.net.get_submodule(name))]
    model.train(training)
    if moving:
        raise RecipeError(f'{setting}: the fit would change {", ".join(moving)}; freeze them: freeze = ["backbone"]')


def require_single_embedding(model: BayesianNet, setting: str, otherwise: str) -> None:
    """Check that the network applies its last layer once to a clip, for the ``setting`` that needs it.

    Raises:
        RecipeError: It applies it to each segment of a clip; the message ends in what to do ``otherwise``.
    """
    if not model.single_embedding:
        raise RecipeError(
            f"{setting}: the network applies its last layer to every segment of a clip, so a clip has no single "
            f"embedding; {otherwise}"
        )


def _moves(module: nn.Module) -> bool:
    """Whether training changes a weight or a statistic of ``module``, or drops some of its units."""
    switched = nn.Dropout | nn.modules.batchnorm._BatchNorm
    return any(parameter.requires_grad for parameter in module.parameters()) or any(
        part.training for part in module.modules() if isinstance(part, switched)
    )


def fingerprint(model: BayesianNet) -> str:
    """32 hexadecimal digits of SHA-256 over all that decides the embeddings of a waveform."""
    digest = hashlib.sha256(f"{FORMAT} {model.front_end and model.front_end.signature}".encode())
    for name, value in model.net.state_dict().items():
        if not name.startswith(f"{model.head}."):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.cpu().reshape(-1).numpy())
    return digest.hexdigest()[:32]
