"""The command ``bayes-panns``: parse, call, print. Importing this package registers every command on :func:`main`."""

from bayes_panns.cli import (
    acquiring,
    completion,
    data,
    demo,
    doctor,
    evaluating,
    exchange,
    fitting,
    learning,
    predicting,
    scoring,
    viewing,
)
from bayes_panns.cli.main import main

__all__ = [
    "acquiring",
    "completion",
    "data",
    "demo",
    "doctor",
    "evaluating",
    "exchange",
    "fitting",
    "learning",
    "main",
    "predicting",
    "scoring",
    "viewing",
]
