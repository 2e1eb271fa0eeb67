"""The published network that clips of one's own are learned on, unless another is named."""

import logging
import os
from pathlib import Path

from bayes_panns.core.choices import CheckpointKind
from bayes_panns.core.errors import BayesPannsError, CheckpointError, PosteriorError
from bayes_panns.core.files import require_folder
from bayes_panns.interop.checkpoints import LABELS, import_checkpoint
from bayes_panns.interop.fetch import PUBLISHED, fetch
from bayes_panns.jobs.inputs import posterior_at
from bayes_panns.jobs.learning import Foundation
from bayes_panns.posterior import save
from bayes_panns.posterior.disk import read_header
from bayes_panns.posterior.header import HEADER

logger = logging.getLogger(__name__)

NAME, FOLDER, SAMPLE_RATE = "efficientat-mn04", "mn04", 32000
"""The network: 4 MB, which knows AudioSet's 527 labels."""

ABOUT = "EfficientAT mn04, fitted to AudioSet by its authors (Schmid et al., ICASSP 2023; MIT licence; 4 MB)"

_HERE = Path("checkpoints")


def cache_folder() -> Path:
    """Where downloads are kept: ``bayes-panns`` in ``$XDG_CACHE_HOME``, or else in ``~/.cache``."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given else Path.home() / ".cache") / "bayes-panns"


def find_foundation(upstream: str | Path | None = None) -> Foundation:
    """The network to start from; nothing is downloaded.

    Args:
        upstream: A posterior, or the folder of its run. By default the published network, in ``checkpoints/mn04`` or
            in :func:`cache_folder`; if it is in neither, ``posterior`` of the result is None.

    Raises:
        PosteriorError: There is no posterior at ``upstream``, or it is damaged.
    """
    if upstream is not None:
        path = Path(upstream)
        if not (posterior_at(path) / HEADER).is_file():
            raise PosteriorError(
                f"{path}: is no posterior ({HEADER} is missing); of a published checkpoint make one with "
                "bayes-panns import"
            )
        return _found(path)
    for path in (_HERE / FOLDER, cache_folder() / FOLDER):
        if (path / HEADER).is_file():
            return _found(path)
    page = PUBLISHED[NAME].page
    return Foundation(f"{ABOUT}; is first downloaded from {page} to {cache_folder()}", None, SAMPLE_RATE)


def obtain(foundation: Foundation) -> Path:
    """The posterior of a foundation, downloaded and imported if it is not there yet.

    Raises:
        CheckpointError: It cannot be downloaded; the message says what to do without a network.
    """
    if foundation.posterior is not None:
        return foundation.posterior
    place = cache_folder()
    require_folder(place)
    place.mkdir(parents=True, exist_ok=True)
    try:
        logger.info(f"downloading {PUBLISHED[NAME].file} to {place}")
        checkpoint = fetch(NAME, place)
        fetch("audioset-labels", place / LABELS)
    except (BayesPannsError, OSError) as error:
        raise CheckpointError(
            f"{error}; without a network bring {PUBLISHED[NAME].file} and {LABELS} along from another machine, make a "
            f"posterior of them with bayes-panns import efficientat FILE -o {_HERE / FOLDER}, or start from any other "
            "posterior with --from"
        ) from error
    save(import_checkpoint(checkpoint, CheckpointKind.EFFICIENTAT), place / FOLDER)
    return place / FOLDER


def _found(path: Path) -> Foundation:
    header = read_header(posterior_at(path))
    rate = int(header["sample_rate"])
    if not rate:
        raise PosteriorError(f"{path}: takes embeddings of another model, and no sound; start from another posterior")
    if header.get("provenance", {}).get("checkpoint") == PUBLISHED[NAME].file:
        return Foundation(f"{ABOUT}: {path}", path, rate)
    return Foundation(f"{header['net']} of {len(header['labels'])} labels, {rate} Hz: {path}", path, rate)
