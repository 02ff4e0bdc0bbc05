"""The CPU path: C kernels where there is a compiler, else torch's operators. Open `attention.py` first."""
