"""The command ``bayes-panns``: parse, call, print. Importing this package registers every command on :func:`main`."""

from bayes_panns.cli import acquiring, data, demo, evaluating, exchange, fitting, predicting
from bayes_panns.cli.main import main

__all__ = ["acquiring", "data", "demo", "evaluating", "exchange", "fitting", "main", "predicting"]
