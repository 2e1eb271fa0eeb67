"""The decisions study: whether decisions on recordings of a shifted kind keep what was asked for."""
