"""Windows that follow each other as events: from when to when a label is heard, and how probable it is that it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A stretch of a recording in which a label is heard.

    Attributes:
        file: The recording's name.
        label: The label's name.
        onset, offset: From when to when, in seconds from the recording's start.
        probability: How probable it is that the event is there at all: the mean over the draws.
        low, high: The central 90 % of the draws.
    """

    file: str
    label: str
    onset: float
    offset: float
    probability: float
    low: float
    high: float
