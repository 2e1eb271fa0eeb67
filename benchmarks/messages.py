"""Messages of the benchmarks and of the package, on standard error."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def messages() -> Iterator[None]:
    """Show messages on standard error inside this block."""
    handler, loggers = logging.StreamHandler(), [logging.getLogger(name) for name in ("benchmarks", "bayes_panns")]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)
