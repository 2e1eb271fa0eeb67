"""Which network a checkpoint is of: by the names and shapes of its weights, its sample rate and its file's name."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from bayes_panns.audio.front_end import FRONT_ENDS
from bayes_panns.core.choices import CheckpointKind
from bayes_panns.core.errors import CheckpointError, RecipeError
from bayes_panns.interop.fetch import PUBLISHED
from bayes_panns.nets import NETS, Network, NetworkEntry, build

logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]

_USUAL_RATE = 32000

_WAVEGRAM, _LAST_BLOCK = {"pre_conv0.weight": (64, 1, 11)}, {"conv_block6.conv2.weight": (2048, 2048, 3, 3)}

UNSUPPORTED: dict[str, dict[str, tuple[int, ...] | None]] = {
    "Wavegram_Logmel128_Cnn14": {**_WAVEGRAM, "bn0.weight": (128,)},
    "Wavegram_Logmel_Cnn14": {**_WAVEGRAM, "conv_block2.conv1.weight": (128, 128, 3, 3)},
    "Wavegram_Cnn14": {**_WAVEGRAM},
    "Res1dNet51": {"conv0.weight": (64, 1, 11), "resnet.layer4.5.conv1.weight": None},
    "Res1dNet31": {"conv0.weight": (64, 1, 11)},
    "DaiNet19": {"conv0.weight": (64, 1, 80)},
    "LeeNet24": {"conv_block9.conv2.weight": (1024, 1024, 3)},
    "LeeNet11": {"conv_block9.conv1.weight": (256, 128, 3)},
    "Cnn14_DecisionLevelAtt": {**_LAST_BLOCK, "att_block.cla.weight": None},
    "Cnn14_mel32": {**_LAST_BLOCK, "bn0.weight": (32,)},
    "Cnn14_mel128": {**_LAST_BLOCK, "bn0.weight": (128,)},
    "Cnn14_emb512": {**_LAST_BLOCK, "fc1.weight": (512, 2048)},
    "Cnn14_emb128": {**_LAST_BLOCK, "fc1.weight": (128, 2048)},
    "Cnn14_emb32": {**_LAST_BLOCK, "fc1.weight": (32, 2048)},
}
"""PANNs' networks that cannot be imported, each with weights that tell it from the others; None for any shape.

The first one that fits is meant.
"""

SAME_WEIGHTS = ("Cnn14_DecisionLevelAvg",)
"""PANNs' networks that have weights like a supported one, and make something else of them.

The name of a file tells them apart: PANNs' code names its files after the network, as in ``Cnn14_mAP=0.431.pth``.
"""


def recognised(
    path: Path, locs: Mapping[str, Tensor], net: str | None, kind: CheckpointKind, rate: int | None
) -> tuple[str, int]:
    """The network of a checkpoint, and its number of labels.

    Args:
        path: The checkpoint. Of several networks with the same weights, its name tells the one that was published so.
        locs: The learned weights by name.
        net: The name of the network, if the user has said it.
        kind: Whose checkpoint it is.
        rate: The sample rate of its front end, in Hz; None if it does not say.

    Raises:
        CheckpointError: No network fits, or the named one does not.
        RecipeError: There is no network called ``net``.
    """
    if net is not None and net not in NETS:
        build(net, 1)  # It says which networks there are.
    known = {name: _expected(NETS[name], locs) for name in ([net] if net is not None else NETS)}
    shapes = {name: tuple(value.shape) for name, value in locs.items()}
    fitting = [name for name, expected in known.items() if expected.shapes == shapes]
    among = [name for name, expected in known.items() if kind in expected.kinds]
    found = [name for name in fitting if name in among]
    if kind == CheckpointKind.PANNS and (other := _unsupported(path, shapes, net, found)):
        of_panns = [name for name in NETS if kind in _without_values(NETS[name]).checkpoints]
        raise CheckpointError(f"{path}: is a {other}, which is not supported; supported are {', '.join(of_panns)}")
    if found:
        return _one_of(path, found, net, rate), known[found[0]].classes
    others = fitting if among else list(known)
    if others:
        kinds = known[others[0]].kinds
        advice = f"import it as {' or '.join(kinds)}" if kinds else "it cannot be imported"
        raise CheckpointError(f"{path}: {others[0]} is not a network of {kind} checkpoints; {advice}")
    nearest = min(among, key=lambda name: len(set(shapes.items()) ^ set(known[name].shapes.items())))
    why = "" if net is not None else ", the most similar one"
    if net is None and (published := _published(path)) in among:
        nearest, why = published, ", whose published file has its name"
    difference = _difference(shapes, known[nearest].shapes)
    raise CheckpointError(f"{path}: does not fit the network {nearest}{why}: {difference}")


def _published(path: Path) -> str:
    """The network that was published in a file of this name; empty if none was."""
    return next((each.net for each in PUBLISHED.values() if each.file == path.name and each.net), "")


def default_rate(net: str) -> int:
    """The sample rate of a checkpoint that does not say its own, in Hz: 32000 if the network takes that.

    Example:
        >>> default_rate("cnn14"), default_rate("cnn14-16k")
        (32000, 16000)
    """
    return next(rate for rate in (_USUAL_RATE, *FRONT_ENDS) if _takes(net, rate))


def _takes(net: str, rate: int) -> bool:
    try:
        _without_values(NETS[net]).front_end(rate)
    except RecipeError:
        return False
    return True


def _one_of(path: Path, found: list[str], net: str | None, rate: int | None) -> str:
    """One of the networks that the weights fit; without a rate, one for 32 kHz if there is one."""
    at_rate = [name for name in found if _takes(name, rate or _USUAL_RATE)]
    if not at_rate and rate is None:
        at_rate = found
    if not at_rate:
        raise CheckpointError(
            f"{path}: its spectrogram is of {rate} Hz, which {found[0]} does not take; leave --net out"
        )
    published = _published(path)
    if published in at_rate:
        return published
    if len(at_rate) > 1:
        logger.warning(
            f"{path}: is read as {at_rate[0]}; its shapes are also those of {', '.join(at_rate[1:])}: if it is one of "
            "these, name it with --net"
        )
    return at_rate[0]


def _unsupported(path: Path, shapes: Shapes, net: str | None, found: list[str]) -> str | None:
    """The PANNs network that a checkpoint is of, if it is one that cannot be imported."""
    if found:
        return next((name for name in SAME_WEIGHTS if net is None and path.name.startswith(f"{name}_")), None)
    for name, telling in UNSUPPORTED.items():
        if all(key in shapes and shape in (None, shapes[key]) for key, shape in telling.items()):
            return name
    return None


def _difference(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """The first difference between a checkpoint's shapes and those of a network."""
    for name, shape in expected.items():
        if name not in shapes:
            return f"{name} is missing"
        if shapes[name] != shape:
            return f"{name} has shape {_times(shapes[name])}, not {_times(shape)}"
    return f"{next(name for name in shapes if name not in expected)} is not one of its parameters"


@dataclass(frozen=True)
class _Expected:
    """A network's parameters by name and shape, its number of labels, and the kinds of its published checkpoints."""

    shapes: dict[str, tuple[int, ...]]
    classes: int
    kinds: tuple[CheckpointKind, ...]


def _expected(entry: NetworkEntry, locs: Mapping[str, Tensor]) -> _Expected:
    """What a checkpoint of a network would hold, with as many labels as these weights have in its last layer."""
    network = _without_values(entry)
    bias = locs.get(f"{network.head}.bias")
    classes = len(bias) if bias is not None and bias.dim() == 1 else 1
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name in (f"{network.head}.weight", f"{network.head}.bias"):
        shapes[name] = (classes, *shapes[name][1:])
    return _Expected(shapes, classes, network.checkpoints)


@cache
def _without_values(entry: NetworkEntry) -> Network:
    """A network for one label whose weights have shapes and no values."""
    with torch.device("meta"):
        return entry.make(1)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "()"
