"""``--guide module:function``: a guide of the user's own, from a module in the current folder or an installed one."""

import sys
from pathlib import Path
from typing import TypeVar

import click

_Value = TypeVar("_Value", str, tuple[str, ...], None)


def own_guide(context: click.Context, parameter: click.Parameter, value: _Value) -> _Value:
    """Let a ``module:function`` that is given on the command line be imported from the current folder.

    An installed command does not look there by itself. This is done for the option alone: what a recipe or a posterior
    names is never imported. The folder comes last in the search, so that a file in it cannot replace a library, and
    only until the command ends.
    """
    folder = str(Path.cwd())
    given: tuple[str, ...] = (value,) if isinstance(value, str) else value or ()
    own = any(":" in each and not Path(each).is_file() for each in given)
    if own and folder not in sys.path:
        sys.path.append(folder)
        context.call_on_close(lambda: sys.path.remove(folder))
    return value
