"""Downloads of published checkpoints, each checked against its checksum where one is known."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bayes_panns.core.digests import sha256_of
from bayes_panns.core.errors import CheckpointError
from bayes_panns.core.files import locked_part, whole_file
from bayes_panns.interop.download import Download


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        summary: What it is, in a few words.
        file: The name that its authors gave it.
        page: The web page that describes it.
        url: Where to download it; None if that needs a browser.
        size: In bytes, if its authors published that.
        md5: MD5, hexadecimal: all that Zenodo publishes.
        sha256: SHA-256, hexadecimal.
        net: The network whose weights it holds: one of :data:`~bayes_panns.nets.NETS`; None if it holds no weights.
    """

    summary: str
    file: str
    page: str
    url: str | None = None
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    net: str | None = None

    @property
    def checksum(self) -> tuple[str, str] | None:
        """The stronger checksum that is known: its algorithm, and its hexadecimal digits; None if there is none."""
        if self.sha256 is not None:
            return "sha256", self.sha256
        return None if self.md5 is None else ("md5", self.md5)


def _zenodo(
    net: str, panns: str, precision: str, md5: str | None, size: int | None = None, sha256: str | None = None
) -> Published:
    """A PANNs checkpoint, ``panns`` in PANNs' code. Zenodo's record 3987831 gives its MD5 and its size."""
    file, page = f"{panns}_mAP={precision}.pth", "https://zenodo.org/records/3987831"
    url = f"{page}/files/{file.replace('=', '%3D')}?download=1"
    return Published(f"PANNs {panns}, AudioSet, mAP {precision}", file, page, url, size, md5, sha256, net)


def _efficientat(net: str, precision: int, sha256: str | None = None) -> Published:
    """An EfficientAT checkpoint. GitHub's release gives no checksum; one was computed of a file at hand."""
    file = f"{net if '_as_' in net else f'{net}_as'}_mAP_{precision}.pt"
    page = "https://github.com/fschmid56/EfficientAT/releases"
    summary = f"EfficientAT {net}, AudioSet, mAP 0.{precision}"
    return Published(summary, file, f"{page}/tag/v0.0.1", f"{page}/download/v0.0.1/{file}", sha256=sha256, net=net)


_EFFICIENTAT = {
    "mn01": 298,
    "mn02": 378,
    "mn04": 432,
    "mn05": 443,
    "mn10": 471,
    "mn20": 478,
    "mn30": 482,
    "mn40": 484,
    "mn10_as_hop_5": 475,
    "mn10_as_hop_15": 463,
    "mn10_as_hop_20": 456,
    "mn10_as_hop_25": 447,
    "mn10_as_mels_40": 453,
    "mn10_as_mels_64": 461,
    "mn10_as_mels_256": 474,
}
"""EfficientAT's mean average precisions on AudioSet, in thousandths, as their file names give them."""

_EFFICIENTAT_SHA256 = {"mn04": "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"}


# The authors' Git repository once held these files; the checksums are those of its commit bf179c1. They are on Box now.
_VI_PANN_PAGE = "https://nps.box.com/s/6ngybfd8b5jh5j2yd1mt1jz07kuvwhgq"
_LABELS = "qiuqiangkong/audioset_tagging_cnn/b28b633fa531467e99811d3da6b27f6b505f9b69/metadata/class_labels_indices.csv"

PUBLISHED = {
    "panns-cnn6": _zenodo("cnn6", "Cnn6", "0.343", "e25e26b84585b14c7754c91e48efc9be"),
    "panns-cnn10": _zenodo("cnn10", "Cnn10", "0.380", "bfb1f1f9968938fa8ef4012b8471f5f6", 25237595),
    "panns-cnn14": _zenodo(
        "cnn14",
        "Cnn14",
        "0.431",
        "541141fa2ee191a88f24a3219fff024e",
        327428481,
        "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
    ),
    "panns-cnn14-16k": _zenodo(
        "cnn14-16k",
        "Cnn14_16k",
        "0.438",
        "362fc5ff18f1d6ad2f6d464b45893f2c",
        358668570,
        "e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
    ),
    "panns-cnn14-decision-level-max": _zenodo(
        "cnn14-decision-level-max",
        "Cnn14_DecisionLevelMax",
        "0.385",
        "70539c43c18b6a289b3199c503a82c5a",
        327428481,
        "dd3b4043a87d4ec13df8082c0fcfee3fb5084151808e47e060987a95eabdd142",
    ),
    "panns-mobilenetv1": _zenodo("mobilenetv1", "MobileNetV1", "0.389", "a419303e1c88aa1b9d2ac3811563d371", 23639473),
    "panns-mobilenetv2": _zenodo("mobilenetv2", "MobileNetV2", "0.383", None),
    "panns-resnet22": _zenodo("resnet22", "ResNet22", "0.430", "cf36d413096793c4e15dc752a3abd599"),
    "panns-resnet38": _zenodo("resnet38", "ResNet38", "0.434", "bf12f36aaabac4e0855e22d3c3239c1b", 299615982),
    "panns-resnet54": _zenodo("resnet54", "ResNet54", "0.429", "4f1f1406d37a29e2379916885e18c5f3"),
    "vi-pann-flipout": Published(
        summary="VI-PANN Flipout ResNet54, AudioSet",
        file="flipout.pth",
        page=_VI_PANN_PAGE,
        size=836476557,
        sha256="d40b5f534b006eb2477fa49c0c4149927fe6bea9ce26e34beb13983da5d630ca",
        net="resnet54",
    ),
    "vi-pann-deterministic": Published(
        summary="VI-PANN deterministic ResNet54, AudioSet",
        file="deterministic.pth",
        page=_VI_PANN_PAGE,
        size=440535499,
        sha256="4fcddb835c95919438e84d504216ea85662a8c9136c7345e6e3035972809c787",
        net="resnet54",
    ),
    **{
        f"efficientat-{net}": _efficientat(net, precision, _EFFICIENTAT_SHA256.get(net))
        for net, precision in _EFFICIENTAT.items()
    },
    "audioset-labels": Published(
        summary="AudioSet's 527 label names",
        file="class_labels_indices.csv",
        page="https://github.com/qiuqiangkong/audioset_tagging_cnn",
        url=f"https://raw.githubusercontent.com/{_LABELS}",
        size=14675,
        sha256="cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429",
    ),
}
"""The files that :func:`fetch` can download, by name."""


def fetch(name: str, path: str | Path | None = None) -> Path:
    """Download a published file, or check one that was downloaded before.

    The download is collected in ``PATH.part`` and moved to ``PATH`` once it is complete and its checksum is right. An
    interrupted download is continued by the next call. ``PATH.sha256`` then holds the SHA-256, in the form
    that ``sha256sum -c`` reads.

    Of some files no checksum is known (:attr:`Published.checksum` is None). Such a file is only compared with
    ``PATH.sha256``, if that is there, and an interrupted download of it starts anew, since what was received before
    could not be checked.

    Args:
        name: One of :data:`PUBLISHED`.
        path: Where to put it: a file, or a folder for a file of the name that its authors gave it; by default the
            current folder.

    Returns:
        The file's path.

    Raises:
        CheckpointError: The name is unknown, the server cannot be reached, the download is interrupted or its checksum
            is wrong, or another file is at ``path``, or one that has changed since it was downloaded.
        OSError: The place cannot be written.
    """
    if name not in PUBLISHED:
        known = ", ".join(f"{each} ({published.summary})" for each, published in PUBLISHED.items())
        raise CheckpointError(f"{name}: unknown file; choose one of {known}")
    published = PUBLISHED[name]
    path = Path() if path is None else Path(path)
    if path.is_dir():
        path /= published.file
    if path.exists():
        if published.checksum is None:
            _require_unchanged(path)
        elif wrong := _mismatch(path, published):
            raise CheckpointError(f"{path}: exists and is not {name} ({wrong}); move it away, or name another file")
    elif published.url is None:
        raise CheckpointError(
            f"{name}: can only be downloaded in a browser: save {published.file} from {published.page} as {path}, then "
            "run this command again to check it"
        )
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        _retrieve(name, published, path)
    with whole_file(_digest_file(path)) as fresh:
        fresh.write_text(f"{sha256_of(path)}  {path.name}\n", encoding="utf-8")
    return path


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _require_unchanged(path: Path) -> None:
    """Check a file against the SHA-256 that was written beside it when it was downloaded, if one was."""
    kept = _digest_file(path)
    if kept.is_file() and kept.read_text(encoding="utf-8", errors="replace").split()[:1] != [sha256_of(path)]:
        raise CheckpointError(f"{path}: has changed since {kept.name} was written; delete both and fetch it again")


def _mismatch(path: Path, published: Published) -> str:
    """How a file differs from the published one; empty if it does not."""
    size = path.stat().st_size
    if published.size not in (None, size):
        return f"it has {size} bytes, not {published.size}"
    algorithm, expected = cast(tuple[str, str], published.checksum)
    found = _checksum(path, algorithm)
    return "" if found == expected else f"its {algorithm.upper()} is {found}, not {expected}"


def _retrieve(name: str, published: Published, path: Path) -> None:
    """Download a file into its part, check it and move it to ``path``."""
    part = path.with_name(f"{path.name}.part")
    with locked_part(part) as ours:
        if not ours:
            raise CheckpointError(f"{path}: another process is downloading it; wait for it")
        if published.checksum is None:
            # What is there could not be checked.
            os.truncate(part, 0)
        try:
            Download(str(published.url), part, path, size=published.size).run()
        finally:
            if not part.stat().st_size:
                part.unlink()
        if published.checksum is not None:
            algorithm, expected = published.checksum
            if _checksum(part, algorithm) != expected:
                part.unlink()
                raise CheckpointError(
                    f"{path}: the downloaded file is not {name}: its {algorithm.upper()} is not {expected}; deleted, "
                    "try again"
                )
        part.replace(path)


def _checksum(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
