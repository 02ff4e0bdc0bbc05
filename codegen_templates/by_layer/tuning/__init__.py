"""Measuring configurations of the kernels of every shape on this GPU."""
