"""The look that all pages share: colours for light and dark, letters, headings, links, notes."""

from importlib import resources


def shared_style() -> str:
    """The style sheet that comes before a page's own."""
    return resources.files(__package__).joinpath("look.css").read_text(encoding="utf-8")
