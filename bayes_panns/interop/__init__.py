"""Import of published checkpoints; export as such checkpoints and for ArviZ; downloads."""

from bayes_panns.interop.checkpoints import import_checkpoint
from bayes_panns.interop.export import export_checkpoint, network_checkpoint
from bayes_panns.interop.fetch import PUBLISHED, Published, fetch
from bayes_panns.interop.inference_data import export_arviz, to_inference_data

__all__ = [
    "PUBLISHED",
    "Published",
    "export_arviz",
    "export_checkpoint",
    "fetch",
    "import_checkpoint",
    "network_checkpoint",
    "to_inference_data",
]
