"""Predictions as a notebook shows them: a piece of HTML that holds all it needs and asks for nothing.

Its size is bounded: so many sounds have a picture and a player, a timeline so many columns, a table so many rows. There
is no script, and no style that could reach the rest of the page. Every name is escaped.
"""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from bayes_panns.core.text import printable
from bayes_panns.metrics.plotting import PALETTE
from bayes_panns.notebook.media import Shown, shown
from bayes_panns.notebook.timeline import lanes

if TYPE_CHECKING:
    from bayes_panns.notebook.predictions import Predictions

SOUNDS, LABELS, ROWS, EVENTS = 3, 5, 30, 12
"""The most sounds that are shown in full, labels of each, rows of the table of the others, and events."""

_GRID = "display:grid;grid-template-columns:minmax(5em,13em) minmax(12em,1fr);gap:2px 8px;align-items:center"

_NAME = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap;text-align:right;font-size:90%"

_FAINT = "opacity:.65;font-size:90%"


def predictions_html(tags: "Predictions") -> str:
    """The sounds with a picture, a player and the most probable labels; then the others in a table."""
    parts = [_sound(tags[name]) for name in tags.files[:SOUNDS]]
    parts += _others(tags)
    for each in tags.skipped[:ROWS]:
        parts.append(f'<div style="{_FAINT}">skipped: {escape(printable(each.reason))}</div>')
    return f'<div style="max-width:60em;text-align:left">{"".join(parts)}</div>'


def _sound(tags: "Predictions") -> str:
    """One sound."""
    name, seconds = tags.files[0], max(window.end for window in tags.windows)
    first = tags.windows[0].start
    stretch = _seconds(seconds) if first == 0 else f"{_seconds(first)} to {_seconds(seconds)}"
    windows = f"{len(tags)} windows" if len(tags) > 1 else "1 window"
    sound = shown(tags)
    parts = [
        f'<div style="margin:.8em 0 .3em">{_name(name)} '
        f'<span style="{_FAINT}">{stretch}, {windows}{escape(sound.note)}</span></div>'
    ]
    parts += [f'<div style="{_FAINT}">{escape(printable(note.text))}</div>' for _, note in tags.notes]
    parts += [
        f'<div style="{_GRID}">',
        *_media(sound),
        *(_bars(tags) if len(tags) == 1 else lanes(tags, LABELS, _NAME)),
    ]
    parts += ["</div>", *_events(tags)]
    return "".join(parts)


def _media(sound: Shown) -> Iterator[str]:
    """The picture and the player, where there are any."""
    if sound.audio:
        yield f'<div></div><audio controls preload="metadata" src="{sound.audio}" style="width:100%"></audio>'
    if sound.picture:
        yield f'<div style="{_NAME}">spectrogram</div>'
        yield f'<img alt="spectrogram" src="{sound.picture}" style="width:100%;height:110px;margin:0;display:block">'


def _bars(tags: "Predictions") -> Iterator[str]:
    """The most probable labels of one window: the mean as a bar, the central 90 % of the draws as a line over it."""
    for top in tags.top(LABELS):
        yield f'<div style="{_NAME}">{escape(printable(top.label))}</div>'
        yield (
            '<div style="display:flex;align-items:center;gap:8px">'
            '<svg viewBox="0 0 100 14" preserveAspectRatio="none" style="flex:1;height:14px">'
            '<rect x="0" y="2" width="100" height="10" fill="currentColor" opacity=".08"/>'
            f'<rect x="0" y="2" width="{100 * top.probability:.2f}" height="10" fill="{PALETTE[0]}" opacity=".45"/>'
            f'<rect x="{100 * top.low:.2f}" y="5.5" width="{max(0.4, 100 * (top.high - top.low)):.2f}" height="3" '
            f'fill="{PALETTE[0]}"/></svg>'
            f'<span style="font-size:90%;white-space:nowrap">{_chance(top.probability, top.low, top.high)}</span></div>'
        )


def _events(tags: "Predictions") -> Iterator[str]:
    """The events of a sound, the surest first, if there are several windows."""
    if len(tags) == 1 or not tags.found:
        return
    surest = sorted(tags.found, key=lambda event: -event.probability)[:EVENTS]
    rows = (
        f"<tr><td>{_seconds(event.onset)}</td><td>{_seconds(event.offset)}</td>"
        f'<td style="text-align:left">{escape(printable(event.label))}</td>'
        f"<td>{_chance(event.probability, event.low, event.high)}</td></tr>"
        for event in sorted(surest, key=lambda event: event.onset)
    )
    count = len(tags.found)
    title = f"{count} event{'s' if count > 1 else ''}"
    title += f", the surest {EVENTS}" if count > EVENTS else ""
    yield (
        f'<details style="margin:.3em 0"><summary>{title}</summary><table><thead><tr><th>from</th><th>to</th>'
        f'<th style="text-align:left">label</th><th>probability</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</details>"
    )


def _others(tags: "Predictions") -> Iterator[str]:
    """The sounds that are not shown in full, a row each."""
    rest = tags.files[SOUNDS:]
    if not rest:
        return
    rows = []
    for name in rest[:ROWS]:
        part = tags[name]
        said = ", ".join(
            f"{escape(printable(top.label))} {_chance(top.probability, top.low, top.high)}" for top in part.top(2)
        )
        rows.append(
            f'<tr><td style="text-align:left">{_name(name)}</td><td>{len(part)}</td>'
            f'<td style="text-align:left">{said}</td></tr>'
        )
    more = f"<div>... and {len(rest) - ROWS} more sounds</div>" if len(rest) > ROWS else ""
    yield (
        '<table style="margin:.8em 0"><thead><tr><th style="text-align:left">sound</th><th>windows</th>'
        '<th style="text-align:left">most probable</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>{more}"
    )


def _name(file: str) -> str:
    """The last part of a path, which shows all of it under the pointer."""
    shown = printable(file)
    return f'<b title="{escape(shown)}">{escape(shown.rstrip("/").rpartition("/")[2])}</b>'


def _chance(probability: float, low: float, high: float) -> str:
    return f"{probability:.2f} ({low:.2f}–{high:.2f})"


def _seconds(seconds: float) -> str:
    """A time as people read it."""
    minutes, rest = divmod(seconds, 60)
    return f"{seconds:.3g} s" if minutes < 1 else f"{int(minutes)}:{rest:04.1f} min"
