"""Published checkpoints, downloaded: resumed where a download stopped, and checked against what was published."""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bayes_panns import __version__
from bayes_panns.core import progress
from bayes_panns.core.errors import CheckpointError
from bayes_panns.core.files import whole_file

_TIMEOUT = 60
"""Seconds without a byte after which a server counts as gone."""


@dataclass(frozen=True)
class Published:
    """A file that others have published.

    At least one checksum is known. SHA-256 is that of the file itself as its makers keep it; MD5 is what a record says
    where it says no more.

    Attributes:
        summary: What it is.
        file: What its makers call it.
        page: Where it is described.
        url: Where it is; None where it can be had through a browser only.
        size: In bytes, where published.
        md5: Hexadecimal.
        sha256: Hexadecimal.
    """

    summary: str
    file: str
    page: str
    url: str | None = None
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None


def _zenodo(net: str, precision: str, md5: str, size: int | None = None) -> Published:
    """A PANNs checkpoint: Zenodo's record 3987831 publishes its MD5."""
    file, page = f"{net}_mAP={precision}.pth", "https://zenodo.org/records/3987831"
    url = f"{page}/files/{file.replace('=', '%3D')}?download=1"
    return Published(f"PANNs {net}, AudioSet, mAP {precision}", file, page, url, size, md5)


# The files that a Git repository once held, by the checksums of its commit bf179c1; it has them on Box since.
_VI_PANN_PAGE = "https://nps.box.com/s/6ngybfd8b5jh5j2yd1mt1jz07kuvwhgq"
_LABELS = "qiuqiangkong/audioset_tagging_cnn/b28b633fa531467e99811d3da6b27f6b505f9b69/metadata/class_labels_indices.csv"

PUBLISHED = {
    "panns-resnet22": _zenodo("ResNet22", "0.430", "cf36d413096793c4e15dc752a3abd599"),
    "panns-resnet38": _zenodo("ResNet38", "0.434", "bf12f36aaabac4e0855e22d3c3239c1b", 299615982),
    "panns-resnet54": _zenodo("ResNet54", "0.429", "4f1f1406d37a29e2379916885e18c5f3"),
    "vi-pann-flipout": Published(
        summary="VI-PANN Flipout ResNet54, AudioSet",
        file="flipout.pth",
        page=_VI_PANN_PAGE,
        size=836476557,
        sha256="d40b5f534b006eb2477fa49c0c4149927fe6bea9ce26e34beb13983da5d630ca",
    ),
    "vi-pann-deterministic": Published(
        summary="VI-PANN deterministic ResNet54, AudioSet",
        file="deterministic.pth",
        page=_VI_PANN_PAGE,
        size=440535499,
        sha256="4fcddb835c95919438e84d504216ea85662a8c9136c7345e6e3035972809c787",
    ),
    "audioset-labels": Published(
        summary="AudioSet's 527 label names",
        file="class_labels_indices.csv",
        page="https://github.com/qiuqiangkong/audioset_tagging_cnn",
        url=f"https://raw.githubusercontent.com/{_LABELS}",
        size=14675,
        sha256="cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429",
    ),
}
"""The files that :func:`fetch` knows, by name."""


def fetch(name: str, path: str | Path | None = None) -> Path:
    """Download a published file, or check one that is there.

    What has come of it stands in ``PATH.part`` until it is whole and its checksum is right, so that an interrupted
    download goes on where it stopped. ``PATH.sha256`` then holds its SHA-256, as ``sha256sum -c`` reads it.

    Args:
        name: One of :data:`PUBLISHED`.
        path: Where to put it: a file, or a folder, by default this one, for a file of its own name.

    Returns:
        Where it is.

    Raises:
        CheckpointError: There is no such name, the server cannot be reached or breaks off, what came is not what was
            published, or something else is at ``path``.
    """
    if name not in PUBLISHED:
        known = ", ".join(f"{each} ({published.summary})" for each, published in PUBLISHED.items())
        raise CheckpointError(f"{name}: no such file is known; there are {known}")
    published = PUBLISHED[name]
    path = Path() if path is None else Path(path)
    if path.is_dir():
        path /= published.file
    if path.exists():
        wrong, sha256 = _check(path, published)
        if wrong:
            raise CheckpointError(f"{path}: is there and is not the published {name}: {wrong}; move it away")
    elif published.url is None:
        raise CheckpointError(
            f"{name}: can be had through a browser only; save {published.file} from {published.page} as {path}, and "
            "this command checks it"
        )
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        _download(published.url, part, path)
        wrong, sha256 = _check(part, published)
        if wrong:
            part.unlink()
            raise CheckpointError(f"{path}: what came is not the published {name}: {wrong}; removed, try again")
        part.replace(path)
    with whole_file(path.with_name(f"{path.name}.sha256")) as fresh:
        fresh.write_text(f"{sha256}  {path.name}\n", encoding="utf-8")
    return path


def _check(path: Path, published: Published) -> tuple[str, str]:
    """What is wrong with a file, if anything, and its SHA-256."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            md5.update(block)
            sha256.update(block)
    size = path.stat().st_size
    if published.size not in (None, size):
        return f"it has {size} bytes, not {published.size}", sha256.hexdigest()
    for kind, found, expected in (("SHA-256", sha256, published.sha256), ("MD5", md5, published.md5)):
        if expected not in (None, found.hexdigest()):
            return f"its {kind} is {found.hexdigest()}, not {expected}", sha256.hexdigest()
    return "", sha256.hexdigest()


def _download(url: str, part: Path, path: Path) -> None:
    """Append to ``part`` what it lacks of ``url``."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"bayes_panns/{__version__}"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # All of it is there, or more; its checksum tells.
        raise CheckpointError(f"{url}: the server answers {error.code} {error.reason}; try again later") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise CheckpointError(
            f"{urlsplit(url).netloc} cannot be reached ({reason}): this needs a network; or download {url} elsewhere, "
            f"to {path}"
        ) from error
    with response:
        starts = re.match(rf"bytes {done}-\d+/", response.headers.get("Content-Range", ""))
        if not (response.status == http.client.PARTIAL_CONTENT and starts):
            done = 0  # A server that knows no ranges sends all of it.
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        bar = progress.task(path.name, total=total, unit="bytes", done=done)
        with part.open("ab" if done else "wb") as file, bar as running:
            while block := _block(response):
                file.write(block)
                running.advance(len(block))
    came = part.stat().st_size
    if total is not None and came < total:
        raise CheckpointError(
            f"{path}: the download broke off after {came} of {total} bytes; the same command goes on from there"
        )


def _block(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(1 << 16)
    except (OSError, http.client.HTTPException):
        # A broken connection ends what comes; how much there is of it tells.
        return b""
