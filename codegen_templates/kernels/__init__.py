"""The Triton kernels. Open `forward.py` first; `index_map.py` and `row_map.py` are what the pattern makes of them."""
