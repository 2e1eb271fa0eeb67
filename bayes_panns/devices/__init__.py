"""Devices that compute: what is sent to them without waiting, and their random states."""

from bayes_panns.devices.random_state import forked, random_state, set_random_state
from bayes_panns.devices.sending import sent

__all__ = ["forked", "random_state", "sent", "set_random_state"]
