"""Packages that some conversions need, and that not everybody has."""

import warnings
from importlib import import_module
from typing import Any

from bayes_panns.core.errors import BayesPannsError


def imported(package: str, name: str, what: str, extra: str) -> Any:
    """A package that need not be installed.

    Args:
        package: Its name in an import.
        name: Its name for people.
        what: What needs it, such as ``to_pandas``.
        extra: What to install of bayes-panns to get it.

    Raises:
        BayesPannsError: It is not installed, or cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            # ArviZ announces its next version on every import.
            warnings.simplefilter("ignore", FutureWarning)
            return import_module(package)
    except ImportError as error:
        raise BayesPannsError(f"{what} needs {name}: pip install 'bayes-panns[{extra}]' ({error})") from error
