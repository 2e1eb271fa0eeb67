"""Import of published checkpoints; export as such checkpoints and for ArviZ; predictions as tables; downloads."""

from bayes_panns.interop.checkpoints import import_checkpoint
from bayes_panns.interop.export import export_checkpoint, network_checkpoint
from bayes_panns.interop.fetch import PUBLISHED, Published, fetch
from bayes_panns.interop.frames import to_arviz, to_pandas, to_polars, to_xarray
from bayes_panns.interop.inference_data import export_arviz, to_inference_data

__all__ = [
    "PUBLISHED",
    "Published",
    "export_arviz",
    "export_checkpoint",
    "fetch",
    "import_checkpoint",
    "network_checkpoint",
    "to_arviz",
    "to_inference_data",
    "to_pandas",
    "to_polars",
    "to_xarray",
]
