"""Import of published checkpoints; export as PANNs checkpoints and for ArviZ; downloads."""

from bayes_panns.interop.checkpoints import import_checkpoint
from bayes_panns.interop.export import export_panns, panns_checkpoint
from bayes_panns.interop.fetch import PUBLISHED, Published, fetch
from bayes_panns.interop.inference_data import export_arviz, to_inference_data

__all__ = [
    "PUBLISHED",
    "Published",
    "export_arviz",
    "export_panns",
    "fetch",
    "import_checkpoint",
    "panns_checkpoint",
    "to_inference_data",
]
