"""The decisions study: whether decisions on recordings of a shifted kind keep what was asked for, or tell otherwise.

One command embeds the clips under each shift, fits, decides and compares. What is made is kept, so that a study that
was stopped continues where it was.
"""

from benchmarks.decisions.command import main

__all__ = ["main"]
