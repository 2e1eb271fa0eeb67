"""The deterministic networks, in plain torch. Nothing here knows Pyro."""

# Each family registers its networks when it is imported.
from bayes_panns.nets import cnn, mobilenet, panns_mobilenet, resnet
from bayes_panns.nets.network import (
    NETS,
    Network,
    NetworkEntry,
    backbone,
    build,
    head_of,
    register,
    segmentwise,
)

__all__ = [
    "NETS",
    "Network",
    "NetworkEntry",
    "backbone",
    "build",
    "cnn",
    "head_of",
    "mobilenet",
    "panns_mobilenet",
    "register",
    "resnet",
    "segmentwise",
]
