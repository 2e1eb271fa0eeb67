"""What a page is made of: sections with headlines, charts, tables and clips, and what they share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bayes_panns.metrics import Interval
from bayes_panns.report.formatting import percent
from bayes_panns.report.page.cards import Card, MediaBudget
from bayes_panns.report.page.charts import Chart, Charts
from bayes_panns.report.page.readings import Headline


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it shows.
        key: What it sorts by.
        bar: The length of its bar, between 0 and 1; None for no bar.
    """

    text: str
    key: float | str
    bar: float | None = None

    @classmethod
    def of(cls, text: str) -> "Cell":
        """A cell that sorts by its text."""
        return cls(text, text)

    @classmethod
    def share(cls, share: float) -> "Cell":
        """A cell with a share of 1 as a percentage and a bar."""
        return cls(percent(share), float(share), float(share))


@dataclass(frozen=True)
class Table:
    """A table that can be sorted; the first cell of a row is its header.

    Attributes:
        caption: What it holds.
        columns: For each column its heading and a hint, which may be empty.
        rows: The cells of each row.
        folded: Whether it is folded away until it is opened.
    """

    caption: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


@dataclass(frozen=True)
class ClipGroup:
    """Clips that were chosen for one reason: a heading, the reason, and a card for each clip."""

    title: str
    text: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        key: Its name in links.
        title: Its heading.
        text: How to read it; may be empty.
        headlines: Numbers in large print.
        charts: Its charts.
        label_charts: Charts of single labels.
        tables: Its tables.
        clip_groups: Its clips.
    """

    key: str
    title: str
    text: str = ""
    headlines: Sequence[Headline] = ()
    charts: Sequence[Chart] = ()
    label_charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    clip_groups: Sequence[ClipGroup] = ()


@dataclass(frozen=True)
class Context:
    """What the sections about one source share.

    Attributes:
        intervals: The metrics of the source's evaluation; empty where there is none.
        resamples: How many resamples the intervals come from.
        draw: Draws the charts.
        clips: How many clips to show for each reason.
        budget: The bytes of sound and pictures that the page may still take.
    """

    intervals: Mapping[str, Interval]
    resamples: int
    draw: Charts
    clips: int
    budget: MediaBudget
