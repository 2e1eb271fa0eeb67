"""Synthetic soundscapes: classes of everyday sounds, drawn at random and mixed over backgrounds."""

from bayes_panns.soundscapes.scenes import DOWNSTREAM, NOVEL, SHORTEST, UPSTREAM, Soundscapes, render, soundscapes

__all__ = ["DOWNSTREAM", "NOVEL", "SHORTEST", "UPSTREAM", "Soundscapes", "render", "soundscapes"]
