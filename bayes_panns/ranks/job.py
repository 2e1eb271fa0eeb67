"""What the first process and the others say to each other: a job, its pieces, and what is made of them."""

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

_Work = TypeVar("_Work")
_Made = TypeVar("_Made")

Start = Callable[[Any], Callable[[_Work], Iterable[_Made]]]
"""Called in each process with what it needs; returns what makes something of a piece. A function of a module."""

JOB, PIECE, ENOUGH, END = "job", "piece", "enough", "end"
"""What the first process says."""

ASK, MADE, SAID, DONE, ERROR = "ask", "made", "said", "done", "error"
"""What another one says."""


@dataclass(frozen=True)
class Job:
    """What is done with pieces of work.

    Attributes:
        start: Makes what makes something of a piece.
        setup: What it needs.
        jobs: How many processes each process of the crew starts for it.
    """

    start: Start[Any, Any]
    setup: Any
    jobs: int = 1


def sendable(error: BaseException) -> BaseException:
    """The error itself, or one that says the same, if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
