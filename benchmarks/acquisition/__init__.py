"""The study of which clips to label next: strategies of ``acquire`` against random clips."""

from benchmarks.acquisition.command import main
from benchmarks.acquisition.continued import continuing

__all__ = ["continuing", "main"]
