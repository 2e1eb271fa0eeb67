"""The deterministic networks, in plain torch. Nothing here knows Pyro."""

# Each family registers its networks when it is imported.
from bayes_panns.nets import mobilenet, resnet
from bayes_panns.nets.network import (
    NETS,
    Network,
    NetworkEntry,
    backbone,
    build,
    head_of,
    pooled,
    register,
    same_backbone,
)

__all__ = [
    "NETS",
    "Network",
    "NetworkEntry",
    "backbone",
    "build",
    "head_of",
    "mobilenet",
    "pooled",
    "register",
    "resnet",
    "same_backbone",
]
