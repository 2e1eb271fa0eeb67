"""Hours made of clips over real background: events found, events counted, and how far both can be trusted.

One command makes the hours, fits the heads, chooses rules and tests them. What is made is kept, so that a study that
was stopped continues where it was.
"""

from benchmarks.hours.command import main
from benchmarks.hours.embedded import Hour, embedded_hour
from benchmarks.hours.finding import Searched, searched
from benchmarks.hours.heads import HEADS, head
from benchmarks.hours.material import Material, heard, material
from benchmarks.hours.mixing import Truth, mix
from benchmarks.hours.study import compare_heads, examine
from benchmarks.hours.tables import tables
from benchmarks.hours.tuning import Chosen, choose, reported

__all__ = [
    "HEADS",
    "Chosen",
    "Hour",
    "Material",
    "Searched",
    "Truth",
    "choose",
    "compare_heads",
    "embedded_hour",
    "examine",
    "head",
    "heard",
    "main",
    "material",
    "mix",
    "reported",
    "searched",
    "tables",
]
