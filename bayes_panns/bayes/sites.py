"""The weights of a network that can be given a prior."""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Site:
    """A weight or bias of a convolution or linear layer.

    Attributes:
        name: The parameter's name in the network, as in PANNs: ``conv_block1.conv1.weight``.
        shape: The parameter's shape.
        fan_in: How many inputs each output of the layer sums: channels times kernel size.
    """

    name: str
    shape: torch.Size
    fan_in: int


def sites(net: nn.Module) -> dict[str, Site]:
    """The sites of ``net`` by name, in the order of its parameters.

    BatchNorm is never among them: it stays deterministic.
    """
    found = {}
    for layer_name, layer in net.named_modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            fan_in = math.prod(layer.weight.shape[1:])
            for parameter_name, parameter in layer.named_parameters(recurse=False):
                name = f"{layer_name}.{parameter_name}" if layer_name else parameter_name
                found[name] = Site(name, parameter.shape, fan_in)
    return found
