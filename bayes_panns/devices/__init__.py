"""Devices that compute: what is sent to them without waiting, their random states, and what has float64."""

from bayes_panns.devices.random_state import forked, random_state, set_random_state
from bayes_panns.devices.sending import sent
from bayes_panns.devices.wide import as_float64, has_float64, widest_float

__all__ = ["as_float64", "forked", "has_float64", "random_state", "sent", "set_random_state", "widest_float"]
