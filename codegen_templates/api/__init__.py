"""The functions that the package exports, as operators of torch. Open `ops.py` first."""
