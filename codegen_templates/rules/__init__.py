"""The pattern on tensors: what is kept, tables of it, and how long a key is still read. Open `masks.py` first."""
