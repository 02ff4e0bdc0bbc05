"""The functions that the package exports: each is that of the layer's own package. Open `layers.py`."""
