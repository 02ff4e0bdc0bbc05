"""What callers may pass, and the errors when they pass something else. Open `shapes.py` first."""
