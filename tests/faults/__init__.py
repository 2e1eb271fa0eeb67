"""Faults while commands run: kills, signals, full and read-only disks, changes and flipped bits. See __main__.py."""
