"""Sound taggers that know how sure they are: VI-PANNs as ordinary Pyro objects."""

__version__ = "0.1.0"
