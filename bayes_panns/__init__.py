"""Sound taggers with calibrated uncertainty: VI-PANNs as ordinary Pyro objects.

Four calls do most of the work: :func:`fit` a posterior to clips, :func:`load` it again, :func:`predict` the tags of
sounds, and :func:`evaluate` the posterior on labelled clips::

    from bayes_panns import evaluate, fit, load, predict
    from bayes_panns.recipes import read_run

    recipe = read_run("scratch", ["data.stores=['stores/mine.h5']", "fit.epochs=20"])
    fit(recipe, "runs/mine")
    posterior = load("runs/mine")
    tags = posterior.predict("dog.wav")  # or predict(posterior, "dog.wav")
    print(tags)
    print(tags.labels, tags.probability, tags.epistemic, tags.top(3))
    print(evaluate(posterior, ["stores/test.h5"]).metrics)

In a notebook ``posterior`` and ``tags`` show themselves, and tags have ``to_pandas()``, ``to_polars()``,
``to_xarray()``, ``to_arviz()``, ``plot()`` and ``save()``.

The calls are imported when they are first used, so that ``import bayes_panns`` itself loads neither torch nor Pyro.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["__version__", "evaluate", "fit", "learn", "load", "predict"]

__version__ = "0.1.0"

# Torch reads this at its first allocation. Without huge pages, fresh memory for weights and gradients costs 20 % more.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_FACADE = {
    "evaluate": ("bayes_panns.jobs", "evaluate_posterior"),
    "fit": ("bayes_panns.jobs", "fit"),
    "learn": ("bayes_panns.interop.learning", "learn"),
    "load": ("bayes_panns.notebook", "load"),
    "predict": ("bayes_panns.notebook", "predict"),
}
"""Where each call is defined: module and name."""

if TYPE_CHECKING:
    from bayes_panns.interop.learning import learn as learn
    from bayes_panns.jobs.evaluate import evaluate_posterior as evaluate
    from bayes_panns.jobs.fit import fit as fit
    from bayes_panns.notebook import load, predict
else:
    # Type checkers do not see this function, so that they report names that do not exist.
    def __getattr__(name: str) -> Any:
        if name not in _FACADE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _FACADE[name]
        value = globals()[name] = getattr(import_module(module), attribute)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
