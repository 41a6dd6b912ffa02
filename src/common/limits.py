"""Limits that hold everywhere unless a flag says otherwise."""

MAX_PIXELS = 100_000_000  # a 436 kB file can unfold into 400 MB; whole slides are not read
