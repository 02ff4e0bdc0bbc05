"""What launches the kernels: grids, arguments and configurations. Open `forward.py` first."""
