"""Reach: how many layers bring every key to every query. `reach.py` decides it with the help of the others."""
