"""``python -m benchmarks gpu``: checks that a GPU computes what a CPU does, and measures what a step costs there.

One process runs one part after the other. A part yields rows, and what is there is written after each row: a machine
that is taken away leaves what it had found out. Only the picture needs Matplotlib, and nothing needs scikit-learn.
"""

from benchmarks.gpu.command import gpu

__all__ = ["gpu"]
