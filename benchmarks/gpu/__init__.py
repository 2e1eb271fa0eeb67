"""``python -m benchmarks gpu``: checks that a GPU computes what a CPU does, and measures what a step costs there.

One process runs one part after the other. A part yields rows; what is there is written after each row, so that a machine
that is taken away leaves what it had found out. Imports are kept to what a fit needs: plots are made only where
Matplotlib is there.
"""

from benchmarks.gpu.command import gpu

__all__ = ["gpu"]
