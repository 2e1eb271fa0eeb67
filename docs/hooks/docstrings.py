"""Docstrings are written for people who read the source; this makes Markdown of the few Sphinx roles in them."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`([^`]+)`")
_LITERAL = re.compile(r"::$", re.MULTILINE)
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class PlainRoles(griffe.Extension):
    """A role becomes a link, two colons at the end of a paragraph become one, and an example a block of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object once it is read."""
        if obj.docstring:
            text = _ROLE.sub(lambda role: _link(role[1], obj), obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", _LITERAL.sub(":", text))


def _link(name: str, obj: griffe.Object) -> str:
    """The name as code, with ``~`` or a leading dot its last part alone; it leads to the reference, if that has it."""
    plain = name.lstrip("~.")
    shown = f"<code>{plain.rsplit('.', 1)[-1] if name.startswith(('~', '.')) else plain}</code>"
    path = plain if plain.startswith("bayes_panns.") else _resolved(plain, obj)
    return f'<autoref optional identifier="{path}">{shown}</autoref>' if path else shown


def _resolved(name: str, obj: griffe.Object) -> str | None:
    """The full path of a name where the object is defined."""
    first, *rest = name.split(".")
    try:
        return ".".join([obj.resolve(first), *rest])
    except griffe.NameResolutionError:
        return None
