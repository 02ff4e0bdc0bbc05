"""Measuring configurations of the kernels on this GPU. Open `main.py` first."""
