"""The command ``bayes-panns``: parse, call, print."""

from bayes_panns.cli.commands import main

__all__ = ["main"]
