"""Sequences split over ranks. Open `exchange.py` first."""
