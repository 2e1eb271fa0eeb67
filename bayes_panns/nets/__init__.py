"""The deterministic networks, in plain torch. Nothing here knows Pyro."""

# Each family registers its networks when it is imported.
from bayes_panns.nets import embeddings, mobilenet, resnet
from bayes_panns.nets.embeddings import EmbeddingNet
from bayes_panns.nets.network import (
    NETS,
    SIZED,
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
    "SIZED",
    "EmbeddingNet",
    "Network",
    "NetworkEntry",
    "backbone",
    "build",
    "embeddings",
    "head_of",
    "mobilenet",
    "pooled",
    "register",
    "resnet",
    "same_backbone",
]
