"""The loader of a fit beside other ways to read the same clips: clips a second, and memory over a pass.

Every turn is a process of its own. Those of all contenders take turns in rounds, and ratios are within a round.
"""
