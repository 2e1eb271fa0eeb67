"""Clips to look at and listen to."""

from bayes_panns.report.media import DYNAMIC_RANGE
from bayes_panns.report.page.cards import make_cards
from bayes_panns.report.page.clips import REASONS, choose_clips
from bayes_panns.report.page.content import ClipGroup, Context, Section
from bayes_panns.report.sources import Source

TITLE = "Clips to review"


def section(source: Source, context: Context) -> Section | None:
    """Groups of clips, each chosen for one reason; None without an evaluation whose clips are there.

    Raises:
        PosteriorError: A posterior is damaged or needs a guide function.
    """
    if source.evaluation is None:
        return None
    cards, sentence = make_cards(source, choose_clips(source.evaluation, context.clips), context.budget)
    if not cards:
        return None
    groups = [ClipGroup(REASONS[key].title, REASONS[key].text, found) for key, found in cards.items()]
    text = (
        f"{sentence} The line next to a label runs from 0 to 1. A clip is shown once, under the first heading that "
        "applies."
    )
    shown = [card for found in cards.values() for card in found]
    if not any(card.seconds for card in shown):
        text += " The network takes embeddings of another model, so there is no sound to show."
        return Section("clips", TITLE, text, clip_groups=groups)
    text += f" Spectrograms are the network's log-mel input, with a range of {DYNAMIC_RANGE} dB."
    if any(not card.audio for card in shown):
        text += " Some clips have no sound, to limit the size of the page."
    return Section("clips", TITLE, text, clip_groups=groups)
