"""The kernels of the Gluon family, for GPUs of sm_90. Open `forward.py` first."""
