"""Pyro modules that keep their parameters to themselves, under any Pyro setting of the user's.

By default Pyro registers the parameters of every ``PyroModule`` in one global store, by name: two guides in one process
collide, and buffers are lost on save. Its setting ``module_local_params`` switches that off, for all modules at once.
This package needs it for its own models and guides only. Pyro reads the setting while a module is running, so a module
of this package switches it on when it starts to run and restores it when it ends: outside, the user's setting holds.
While a model or guide of this package runs, the setting is on for whatever else runs at that moment, in other threads
too.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import pyro
from pyro.nn import PyroModule
from pyro.nn.module import _Context
from torch import nn


class LocalParameters(PyroModule):
    """A ``PyroModule`` whose parameters, and those of the modules inside it, never enter Pyro's global store."""

    def __init__(self, name: str = ""):
        super().__init__(name)
        self._pyro_context = _LocalContext()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        result = super().__call__(*args, **kwargs)
        for parameter in self.parameters():
            # SVI asks each parameter for this. In local mode Pyro gives it to PyroParams, and not to plain parameters.
            parameter.unconstrained = weakref.ref(parameter)
        return result


def keep_local(module: nn.Module) -> None:
    """Make the ``PyroModule`` objects in ``module`` that were built elsewhere keep their parameters to themselves.

    They count as not run yet, so that they can become part of another module.
    """
    contexts: dict[int, _LocalContext] = {}
    for each in module.modules():
        if isinstance(each, PyroModule):
            # Modules that share a context go on sharing one.
            context = contexts.setdefault(id(each.__dict__["_pyro_context"]), _LocalContext())
            each.__dict__["_pyro_context"] = context


class _LocalContext(_Context):
    """What Pyro enters when a module is called; this one holds the setting on for as long."""

    _outside: ExitStack | None = None

    def __init__(self) -> None:
        with pyro.settings.context(module_local_params=True):
            super().__init__()

    def __enter__(self) -> None:
        if not self.active:
            self._outside = ExitStack()
            self._outside.enter_context(pyro.settings.context(module_local_params=True))
            self._outside.enter_context(_kept_references())
        super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if not self.active and self._outside is not None:
            self._outside.close()
            self._outside = None


@contextmanager
def _kept_references() -> Iterator[None]:
    """Keep what Pyro takes from the user's parameters when it sets its store aside, and needs after it: a reference."""
    parameters = pyro.get_param_store()._params.values()
    references = [(each, each.unconstrained) for each in parameters if hasattr(each, "unconstrained")]
    yield
    for each, reference in references:
        each.unconstrained = reference
