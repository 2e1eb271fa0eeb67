"""Messages of the steps inside a longer job."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only(level: str, *modules: str) -> Iterator[None]:
    """A block in which parts of the package say only what is worse than that they go on."""
    loggers = [logging.getLogger(f"bayes_panns.{module}") for module in modules]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(level)
    try:
        yield
    finally:
        for each, was in zip(loggers, before, strict=True):
            each.setLevel(was)
