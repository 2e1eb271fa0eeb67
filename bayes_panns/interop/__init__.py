"""Published checkpoints in; plain PANNs weights and ArviZ out."""

from bayes_panns.interop.checkpoints import KINDS, SCALES, import_checkpoint
from bayes_panns.interop.export import export_panns, panns_checkpoint
from bayes_panns.interop.fetch import PUBLISHED, Published, fetch
from bayes_panns.interop.inference_data import export_arviz, to_inference_data

__all__ = [
    "KINDS",
    "PUBLISHED",
    "SCALES",
    "Published",
    "export_arviz",
    "export_panns",
    "fetch",
    "import_checkpoint",
    "panns_checkpoint",
    "to_inference_data",
]
