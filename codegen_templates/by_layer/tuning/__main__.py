"""`python -m <package>.tuning`: the same of each shape's package, one after the other, until one of them cannot."""

import sys
from importlib import import_module

from ..api.layers import parts
from ..pattern import FACTS

codes = (import_module(f"{one.__name__}.tuning.main").main(whole=FACTS["name"]) for one in parts)
sys.exit(next(filter(None, codes), 0))
