"""Docstrings are written for people who read the source; this makes Markdown of the few Sphinx roles in them."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`([^`]+)`")
_LITERAL = re.compile(r"::$", re.MULTILINE)


class PlainRoles(griffe.Extension):
    """``:class:`.Store``` becomes ``Store``; a paragraph that ends in two colons ends in one."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object once it is read."""
        if obj.docstring:
            obj.docstring.value = _LITERAL.sub(":", _ROLE.sub(_code, obj.docstring.value))


def _code(match: re.Match[str]) -> str:
    """The name as code; with ``~`` or a leading dot its last part alone."""
    name = match[1]
    return f"`{name.rsplit('.', 1)[-1] if name.startswith(('~', '.')) else name}`"
