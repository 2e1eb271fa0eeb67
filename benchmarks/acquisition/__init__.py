"""The study of which clips to label next: strategies of ``acquire`` against random clips."""

from benchmarks.acquisition.command import main

__all__ = ["main"]
