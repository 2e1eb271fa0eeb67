"""Docstrings are written for people who read the source; this makes Markdown of the few Sphinx roles in them."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`([^`]+)`")
_LITERAL = re.compile(r"::$", re.MULTILINE)
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class PlainRoles(griffe.Extension):
    """A role becomes code, two colons at the end of a paragraph become one, and an example a block of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object once it is read."""
        if obj.docstring:
            text = _ROLE.sub(_code, obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", _LITERAL.sub(":", text))


def _code(match: re.Match[str]) -> str:
    """The name as code; with ``~`` or a leading dot its last part alone."""
    name = match[1]
    return f"`{name.rsplit('.', 1)[-1] if name.startswith(('~', '.')) else name}`"
