"""The deterministic networks: PANNs' ResNets and a narrow one, in plain torch. Nothing here knows of Pyro."""

from bayes_panns.nets.resnet import HEAD, NETS, ResNet, build

__all__ = ["HEAD", "NETS", "ResNet", "build"]
