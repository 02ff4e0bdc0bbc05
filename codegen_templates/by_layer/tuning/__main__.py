"""`python -m <package>.tuning`: tunes the package of each shape, one after the other; stops where one cannot be."""

import sys
from importlib import import_module

from ..api.layers import parts
from ..pattern import FACTS

codes = (import_module(f"{one.__name__}.tuning.main").main(whole=FACTS["name"]) for one in parts)
sys.exit(next(filter(None, codes), 0))
