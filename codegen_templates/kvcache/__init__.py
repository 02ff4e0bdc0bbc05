"""A cache that keeps only what later rows can still read. Open `cache.py` first."""
