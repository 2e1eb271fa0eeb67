"""Sound taggers that know how sure they are: VI-PANNs as ordinary Pyro objects."""

import os

# Torch reads this at its first allocation: on huge pages, fresh memory for weights and gradients costs a fifth.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
