"""The deterministic networks, in plain torch. Nothing here knows Pyro."""

# Each family registers its networks when it is imported.
from bayes_panns.nets import cnn, embeddings, mobilenet, panns_mobilenet, resnet
from bayes_panns.nets.embeddings import EmbeddingNet
from bayes_panns.nets.network import (
    NETS,
    POOLED,
    SIZED,
    Network,
    NetworkEntry,
    backbone,
    build,
    head_of,
    pooled,
    register,
    same_backbone,
    segmentwise,
)

__all__ = [
    "NETS",
    "POOLED",
    "SIZED",
    "EmbeddingNet",
    "Network",
    "NetworkEntry",
    "backbone",
    "build",
    "cnn",
    "embeddings",
    "head_of",
    "mobilenet",
    "panns_mobilenet",
    "pooled",
    "register",
    "resnet",
    "same_backbone",
    "segmentwise",
]
