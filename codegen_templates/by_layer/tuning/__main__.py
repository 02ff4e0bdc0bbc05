"""`python -m <package>.tuning`: the same of each shape's package, one after the other."""

import sys
from importlib import import_module

from ..api.layers import parts

sys.exit(max(import_module(f"{one.__name__}.tuning.main").main() for one in parts))
